use super::*;
use proptest::prelude::*;

fn decode_all(decoder: &mut Decoder, mut bytes: &[u8]) -> Result<Vec<Event>, Broken> {
    let mut events = Vec::new();
    while let Some(event) = decoder.decode(&mut bytes)? {
        events.push(event);
    }
    assert!(bytes.is_empty());
    Ok(events)
}

fn from_server(bytes: &[u8]) -> Result<Vec<Event>, Broken> {
    decode_all(&mut Decoder::new(Role::Client, 100), bytes)
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, 0, payload, None);
    bytes[0] = first;
    bytes
}

#[test]
fn the_examples_of_the_rfc() {
    let hello = Ok(vec![Event::Text(b"Hello".to_vec())]);
    assert_eq!(from_server(b"\x81\x05Hello"), hello);
    let fragments = [b"\x01\x03Hel", b"\x80\x02lo".as_slice()].concat();
    assert_eq!(from_server(&fragments), hello);
    let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(
        decode_all(&mut Decoder::new(Role::Server, 100), masked),
        hello
    );
    let mut encoded = Vec::new();
    encode(&mut encoded, TEXT, b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]));
    assert_eq!(encoded, masked);
}

#[test]
fn control_frames_come_between_fragments() {
    let bytes = [
        frame(0x01, b"a"),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x8a, b"pong"),
        frame(0x80, b"b"),
        frame(0x88, &[]),
        frame(0x88, b"\x03\xe9bye \xff"),
    ]
    .concat();
    let events = from_server(&bytes).unwrap();
    let expected = [
        Event::Ping(b"ping".to_vec()),
        Event::Pong,
        Event::Text(b"ab".to_vec()),
        Event::Close(1005, String::new()),
        Event::Close(1001, "bye \u{fffd}".into()),
    ];
    assert_eq!(events, expected);
}

#[test]
fn what_is_too_large_or_binary_is_passed_over() {
    let after = frame(0x81, b"after");
    let text = Event::Text(b"after".to_vec());
    for (frames, event) in [
        (vec![frame(0x81, &[b'a'; 101])], Event::TooLarge(101)),
        (
            vec![
                frame(0x01, &[b'a'; 60]),
                frame(0x00, &[b'a'; 41]),
                frame(0x80, b"more"),
            ],
            Event::TooLarge(101),
        ),
        (vec![frame(0x82, &[1; 70_000])], Event::Binary),
        (
            vec![frame(0x02, &[1; 9]), frame(0x80, &[1; 900])],
            Event::Binary,
        ),
    ] {
        let bytes = [frames.concat(), after.clone()].concat();
        assert_eq!(from_server(&bytes).unwrap(), [event, text.clone()]);
    }
    let at_the_limit = frame(0x81, &[b'a'; 100]);
    assert_eq!(
        from_server(&at_the_limit).unwrap(),
        [Event::Text(vec![b'a'; 100])]
    );
}

#[test]
fn a_declared_length_allocates_nothing() {
    let mut decoder = Decoder::new(Role::Client, usize::MAX);
    let header = [0x81, 127, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, b'a'];
    assert_eq!(decode_all(&mut decoder, &header), Ok(vec![]));
    assert!(decoder.text.capacity() < 100);
}

#[test]
fn broken_frames() {
    for (bytes, text) in [
        (&[0xc1, 0][..], "extension"),
        (&[0xff, 0xff], "extension"),
        (&[0x83, 0], "opcode"),
        (&[0x8b, 0], "opcode"),
        (&[0x09, 0], "fragmented"),
        (&[0x89, 126, 0, 126], "125"),
        (&[0x80, 0], "without a beginning"),
        (&[0x01, 0, 0x81, 0], "inside another"),
        (&[0x02, 0, 0x01, 0], "inside another"),
        (&[0x81, 0x80, 0, 0, 0, 0], "masked"),
        (&[0x88, 1, 3], "half a code"),
        (&[0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], "63 bits"),
        (b"HTTP/1.1 200 OK", "extension"),
    ] {
        let mut decoder = Decoder::new(Role::Client, 100);
        let mut rest = bytes;
        let broken = loop {
            match decoder.decode(&mut rest) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{bytes:?} is taken"),
                Err(broken) => break broken,
            }
        };
        assert!(broken.0.contains(text), "{bytes:?}: {broken}");
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_in_any_pieces(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
        mask: Option<[u8; 4]>,
        piece in 1_usize..50,
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            encode(&mut bytes, TEXT, message, mask);
        }
        let role = if mask.is_some() { Role::Server } else { Role::Client };
        let mut decoder = Decoder::new(role, 1000);
        let mut events = Vec::new();
        for piece in bytes.chunks(piece) {
            events.extend(decode_all(&mut decoder, piece).unwrap());
        }
        let expected: Vec<Event> = messages.into_iter().map(Event::Text).collect();
        prop_assert_eq!(events, expected);
    }

    #[test]
    fn tungstenite_reads_what_is_encoded(payload in proptest::collection::vec(any::<u8>(), 0..70_000), mask: Option<[u8; 4]>) {
        use tungstenite::protocol::frame::{FrameHeader, coding::{Data, OpCode}};
        let mut bytes = Vec::new();
        encode(&mut bytes, TEXT, &payload, mask);
        let mut cursor = std::io::Cursor::new(&bytes);
        let (header, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        prop_assert_eq!(length, payload.len() as u64);
        prop_assert_eq!(header.opcode, OpCode::Data(Data::Text));
        prop_assert!(header.is_final);
        prop_assert_eq!(header.mask, mask);
        let mut rest = bytes[usize::try_from(cursor.position()).unwrap()..].to_vec();
        apply_mask(&mut rest, mask.unwrap_or_default());
        prop_assert_eq!(rest, payload);
    }

    #[test]
    fn no_bytes_make_it_panic_or_grow(bytes: Vec<u8>, server: bool) {
        let role = if server { Role::Server } else { Role::Client };
        let mut decoder = Decoder::new(role, 10);
        let mut rest = bytes.as_slice();
        while let Ok(Some(_)) = decoder.decode(&mut rest) {}
        prop_assert!(decoder.text.len() <= 10 && decoder.control.len() <= CONTROL_LIMIT);
    }
}

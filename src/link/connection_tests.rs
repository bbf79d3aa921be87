use super::*;
use crate::sys::poll::{IN, after, wait_one};
use std::io::{Read, Write};
use std::time::Duration;

const LIMIT: usize = 100_000;

fn pair() -> (Connection, Connection) {
    Connection::pair(LIMIT).unwrap()
}

/// A client and the bare socket of its peer, which blocks.
fn bare() -> (Connection, UnixStream) {
    let (client, server) = UnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    (
        Connection::from_stream(Box::new(client), Role::Client, LIMIT),
        server,
    )
}

/// Waits for the next thing that arrives.
fn next(connection: &mut Connection) -> Result<Incoming, LinkError> {
    loop {
        if let Some(incoming) = connection.receive()? {
            return Ok(incoming);
        }
        wait_one(connection.fd(), IN, after(Duration::from_secs(10))).unwrap();
    }
}

#[test]
fn messages_go_both_ways_in_order() {
    let (mut one, mut two) = pair();
    for n in 0..20 {
        one.send(&format!("to two {n}")).unwrap();
        two.send(&format!("to one {n}")).unwrap();
    }
    for n in 0..20 {
        assert_eq!(
            next(&mut two).unwrap(),
            Incoming::Text(format!("to two {n}").into())
        );
        assert_eq!(
            next(&mut one).unwrap(),
            Incoming::Text(format!("to one {n}").into())
        );
    }
    assert!(one.receive().unwrap().is_none());
}

#[test]
fn what_does_not_fit_waits_and_the_buffer_is_given_back() {
    let (mut one, mut two) = pair();
    let text = "x".repeat(LIMIT);
    let mut sent = 0;
    while !one.wants_write() {
        one.send(&text).unwrap();
        sent += 1;
    }
    for _ in 0..3 {
        match one.send(&text) {
            Ok(()) => sent += 1,
            Err(LinkError::Full) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(matches!(one.send(&text), Err(LinkError::Full)));
    let mut received = 0;
    while received < sent {
        one.flush().unwrap();
        while let Some(incoming) = two.receive().unwrap() {
            assert_eq!(incoming, Incoming::Text(text.clone().into()));
            received += 1;
        }
    }
    assert!(one.flush().unwrap() && !one.wants_write());
    assert!(one.output.capacity() <= KEPT_OUTPUT && one.input.capacity() <= INPUT);
}

#[test]
fn pings_are_answered_and_a_flood_of_them_grows_nothing() {
    let (mut one, mut two) = pair();
    one.ping().unwrap();
    assert_eq!(next(&mut two).unwrap(), Incoming::Ping);
    assert_eq!(next(&mut one).unwrap(), Incoming::Pong);

    let (mut client, mut server) = bare();
    server.set_nonblocking(true).unwrap();
    let ping = [[0x89, 125].as_slice(), &[7; 125]].concat();
    let mut pings = 0;
    // The server never reads the pongs.
    while pings < 20_000 {
        if server.write(&ping).is_ok() {
            pings += 1;
        }
        while client.receive().unwrap().is_some() {}
    }
    assert!(client.wants_write());
    assert!(client.output.capacity() <= KEPT_OUTPUT);
}

#[test]
fn too_much_and_the_wrong_kind_do_not_end_it() {
    let (mut client, mut server) = bare();
    let writer = std::thread::spawn(move || {
        let mut large = vec![0x81, 127];
        large.extend((3_u64 << 20).to_be_bytes());
        large.resize(large.len() + (3 << 20), b'a');
        server.write_all(&large).unwrap();
        server
            .write_all(b"\x82\x01x\x81\x02\xff\xfe\x81\x02ok")
            .unwrap();
        server
    });
    assert_eq!(
        next(&mut client).unwrap(),
        Incoming::TooLarge { size: 3 << 20 }
    );
    assert_eq!(next(&mut client).unwrap(), Incoming::Binary);
    assert_eq!(
        next(&mut client).unwrap(),
        Incoming::Text(b"\xff\xfe".to_vec())
    );
    assert_eq!(next(&mut client).unwrap(), Incoming::Text(b"ok".to_vec()));
    writer.join().unwrap();
}

#[test]
fn a_broken_frame_ends_it_and_the_peer_learns_why() {
    let (mut client, mut server) = bare();
    server.write_all(b"\x81\x02ok\xff\xff\xff\xff").unwrap();
    assert_eq!(next(&mut client).unwrap(), Incoming::Text(b"ok".to_vec()));
    assert!(matches!(next(&mut client), Err(LinkError::Broken(_))));
    assert!(matches!(next(&mut client), Err(LinkError::Ended)));
    drop(client);
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).unwrap();
    let mut decoder = Decoder::new(Role::Server, LIMIT);
    let event = decoder.decode(&mut answer.as_slice()).unwrap();
    assert!(matches!(event, Some(Event::Close(1002, _))), "{event:?}");
}

#[test]
fn closing_is_answered_once() {
    let (mut one, mut two) = pair();
    two.send("before").unwrap();
    one.close(1001, &"ü".repeat(100)).unwrap();
    one.close(1000, "again").unwrap();
    assert!(matches!(one.send("late"), Err(LinkError::Ended)));
    let Incoming::Close { code, reason } = next(&mut two).unwrap() else {
        panic!("no close");
    };
    assert_eq!((code, reason), (1001, "ü".repeat(61)));
    assert!(matches!(two.receive(), Err(LinkError::Ended)));
    assert_eq!(next(&mut one).unwrap(), Incoming::Text(b"before".to_vec()));
    assert!(matches!(
        next(&mut one).unwrap(),
        Incoming::Close { code: 1001, .. }
    ));
    assert!(matches!(one.receive(), Err(LinkError::Ended)));
}

#[test]
fn a_peer_that_vanishes_is_an_end() {
    let (mut one, two) = pair();
    drop(two);
    assert!(matches!(next(&mut one), Err(LinkError::Ended)));
    assert!(matches!(one.send("x"), Err(LinkError::Io(_))));
}

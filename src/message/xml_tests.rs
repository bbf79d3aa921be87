use super::*;
use crate::message::DEFAULT_LIMIT;
use proptest::prelude::*;

fn read(text: &str) -> Result<Message, DecodeError> {
    Message::decode(text.as_bytes(), DEFAULT_LIMIT)
}

fn refused(text: &str) -> String {
    read(text).expect_err(text).reason
}

fn message(payload: &str) -> Message {
    Message {
        kind: "a".into(),
        version: 1,
        id: "1".into(),
        conversation_id: "1".into(),
        payload: Some(payload.into()),
        signature: None,
    }
}

/// Any text that XML 1.0 can carry.
fn xml_text() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![
            any::<char>().prop_filter("XML 1.0", |c| is_xml_char(*c)),
            proptest::sample::select(vec![
                '<', '>', '&', ']', '\r', '\n', '\t', '"', '\'', ' ', ';', '#'
            ]),
        ],
        0..60,
    )
    .prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn any_text_makes_the_round_trip_on_one_line(
        kind in xml_text(), id in xml_text(), conversation in xml_text(), payload in proptest::option::of(xml_text()), version: u32,
        signed in proptest::option::of((any::<[u8; 32]>(), proptest::option::of(any::<u32>()), proptest::option::of(any::<u32>()))),
    ) {
        let signature = signed.map(|(half, number, until)| {
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(&half);
            let key_id = crate::message::id::hex(&half[..8]).parse().unwrap();
            Box::new(Signature { key_id, number, until, bytes })
        });
        let written = Message {
            kind: format!("k{kind}"), version, id: format!("i{id}"), conversation_id: format!("c{conversation}"), payload,
            signature,
        };
        let line = written.encode().unwrap();
        prop_assert!(!line.contains(['\n', '\r']));
        prop_assert_eq!(read(&line).unwrap(), written);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&bytes, DEFAULT_LIMIT);
    }

    #[test]
    fn a_damaged_message_is_read_or_refused(at in 0usize..150, byte: u8) {
        let mut bytes = message("{\"a\":1}").encode().unwrap().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Message::decode(&bytes, DEFAULT_LIMIT);
        let _ = Message::decode(&bytes[..at], DEFAULT_LIMIT);
    }
}

#[test]
fn fields_come_in_any_order_with_defaults() {
    let m = read(" <?xml version='1.0'?>").expect_err("a declaration after white space");
    assert!(m.reason.contains("declaration"), "{m}");
    let m = read(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<!-- x --><tritonMessage>\r\n  <id>7</id>\n  <!-- y -->\
         <payload>a&lt;<![CDATA[<b>&amp;]]>&#x63;</payload>\t<type>t</type>\n</tritonMessage>\n<?pi?>",
    )
    .unwrap();
    assert_eq!(m.kind, "t");
    assert_eq!(m.version, 1);
    assert_eq!(m.id, "7");
    assert_eq!(m.conversation_id, "7");
    assert_eq!(m.payload.as_deref(), Some("a<<b>&amp;c"));
}

#[test]
fn unknown_elements_are_skipped_at_any_depth() {
    let nested = "<x>".repeat(20_000) + "t&amp;<type>no</type>" + &"</x>".repeat(20_000);
    let m = read(&format!(
        "<tritonMessage a='1'><type>t</type>{nested}<y z='&lt;'/><id>1</id></tritonMessage>"
    ))
    .unwrap();
    assert_eq!(
        (m.kind.as_str(), m.id.as_str(), m.payload),
        ("t", "1", None)
    );
}

#[test]
fn line_ends_in_text_are_read_as_xml_says() {
    let m = read(
        "<tritonMessage><type>t</type><id>1</id><payload>a\r\nb&#13;</payload></tritonMessage>",
    )
    .unwrap();
    assert_eq!(m.payload.as_deref(), Some("a\nb\r"));
    let m = read("<tritonMessage><type>t</type><id>1</id><payload/></tritonMessage>").unwrap();
    assert_eq!(m.payload.as_deref(), Some(""));
}

#[test]
fn what_is_no_message_is_refused_with_a_reason() {
    let t = "<type>t</type>";
    let i = "<id>1</id>";
    for (document, reason) in [
        (String::new(), "no XML element"),
        ("hello".into(), "outside the root"),
        (
            format!("<!DOCTYPE a><tritonMessage>{t}{i}</tritonMessage>"),
            "DOCTYPE",
        ),
        (
            format!(
                "<!DOCTYPE l [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><tritonMessage>{t}{i}<payload>&b;</payload></tritonMessage>"
            ),
            "DOCTYPE",
        ),
        (
            format!("<tritonMessage>{t}{i}<payload>&b;</payload></tritonMessage>"),
            "entity",
        ),
        (
            format!("<tritonMessage>{t}{i}<x>&b;</x></tritonMessage>"),
            "entity",
        ),
        (
            format!("<tritonMessage>{t}{i}<payload>&#0;</payload></tritonMessage>"),
            "reference",
        ),
        (
            format!("<tritonMessage>{t}{i}<payload>&#xFFFE;</payload></tritonMessage>"),
            "reference",
        ),
        (
            format!("<tritonMessage>{t}{i}<payload>\0</payload></tritonMessage>"),
            "U+0000",
        ),
        (
            format!("<tritonMessage>{t}{i}</tritonMessage><tritonMessage/>"),
            "second root",
        ),
        (
            format!("<tritonMessage>{t}{i}</tritonMessage>x"),
            "outside the root",
        ),
        (
            format!("<tritonMessage>{t}{i}</tritonMessage>&amp;"),
            "outside the root",
        ),
        (
            format!("<tritonMessage>{t}{i}{i}</tritonMessage>"),
            "id stands twice",
        ),
        (
            format!("<tritonMessage>{t}{i}<payload/><payload/></tritonMessage>"),
            "payload stands twice",
        ),
        (
            format!("<tritonMessage>{t}{i}x</tritonMessage>"),
            "between the fields",
        ),
        (
            format!("<tritonMessage>{t}{i}<payload><a/></payload></tritonMessage>"),
            "inside the field payload",
        ),
        (
            format!("<tritonMessage>{i}</tritonMessage>"),
            "type is missing",
        ),
        (
            format!("<tritonMessage><type/>{i}</tritonMessage>"),
            "type is missing",
        ),
        (
            format!("<tritonMessage>{t}</tritonMessage>"),
            "id is missing",
        ),
        (
            format!(
                "<tritonMessage>{t}<id>{}</id></tritonMessage>",
                "é".repeat(129)
            ),
            "129 characters",
        ),
        (
            format!("<tritonMessage>{t}{i}<version>one</version></tritonMessage>"),
            "version",
        ),
        (format!("<tritonMessage>{t}{i}"), "ends before"),
        (format!("<tritonMessage>{t}{i}</other>"), "well-formed"),
        (format!("<tritonMessage>{t}{i}<payload"), "well-formed"),
        (
            format!("<tritonMessage>{t}{i}<payload>&amp</payload></tritonMessage>"),
            "well-formed",
        ),
        (
            format!("<tritonMessage a=1 b>{t}{i}</tritonMessage>"),
            "attribute",
        ),
        (format!("<other>{t}{i}</other>"), "root element is not"),
    ] {
        let said = refused(&document);
        assert!(said.contains(reason), "{document}: {said}");
    }
    let e = Message::decode(b"<tritonMessage>\xff", DEFAULT_LIMIT).unwrap_err();
    assert!(e.reason.contains("UTF-8 at byte 15"), "{e}");
}

#[test]
fn an_id_of_128_characters_is_accepted() {
    let id = "é".repeat(128);
    assert_eq!(
        read(&format!(
            "<tritonMessage><type>t</type><id>{id}</id></tritonMessage>"
        ))
        .unwrap()
        .id,
        id
    );
}

#[test]
fn the_limit_is_checked_first_and_exactly() {
    let line = message("x").encode().unwrap();
    assert!(Message::decode(line.as_bytes(), line.len()).is_ok());
    let e = Message::decode(line.as_bytes(), line.len() - 1).unwrap_err();
    assert_eq!(e.code, ErrorCode::TooLarge);
}

#[test]
fn an_error_names_the_conversation_where_it_can() {
    let e = read("<tritonMessage><id>5</id></tritonMessage>").unwrap_err();
    assert_eq!(e.to_message().conversation_id, "5");
    let e = read("<tritonMessage><conversationId>c</conversationId><id>5</id><type>t</type>x</tritonMessage>").unwrap_err();
    assert_eq!(e.to_message().conversation_id, "c");
    assert_eq!(e.to_message().kind, "error");
}

#[test]
fn characters_that_xml_cannot_carry_do_not_reach_the_writer() {
    for c in ['\0', '\u{1b}', '\u{FFFE}', '\u{FFFF}'] {
        let error = message(&format!("a{c}")).encode().unwrap_err();
        assert_eq!((error.field, error.character), ("payload", c));
    }
}

#[test]
fn a_signature_is_read_once_and_strictly() {
    let good = "A".repeat(86) + "==";
    let with = |element: &str| {
        read(&format!(
            "<tritonMessage><type>a</type><id>1</id>{element}</tritonMessage>"
        ))
    };
    let whole =
        format!("<signature until=\"7\" x=\"y\" keyId='0123456789ABCDEF'>{good}</signature>");
    let signature = with(&whole).unwrap().signature.unwrap();
    assert_eq!(signature.key_id.to_string(), "0123456789abcdef");
    assert_eq!((signature.number, signature.until), (None, Some(7)));
    for wrong in [
        format!("{whole}{whole}"),
        "<signature/>".to_owned(),
        format!("<signature>{good}</signature>"),
        format!("<signature keyId='01234567'>{good}</signature>"),
        "<signature keyId='0123456789abcdef'>AAAA</signature>".to_owned(),
        "<signature keyId='0123456789abcdef'>*</signature>".to_owned(),
        format!("<signature keyId='0123456789abcdef' until='-1'>{good}</signature>"),
        format!("<signature keyId='0123456789abcdef' until='4294967296'>{good}</signature>"),
        format!("<signature keyId='0123456789abcdef' number=''>{good}</signature>"),
        format!("<signature keyId='0123456789abcdef'><b/>{good}</signature>"),
    ] {
        let error = with(&wrong).unwrap_err();
        assert_eq!(error.code, ErrorCode::Invalid, "{wrong}");
        assert!(error.reason.contains("signature"), "{error}");
    }
    // Inside of something unknown it is nothing.
    assert_eq!(with(&format!("<x>{whole}</x>")).unwrap().signature, None);
}

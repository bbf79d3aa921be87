use super::*;
use triton::message::id;

fn pattern(text: &str) -> Pattern {
    Pattern::new(&text.chars().map(|c| (c, false)).collect::<Vec<_>>())
}

/// The definition, without any cleverness.
fn by_definition(pattern: &[Piece], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((Piece::Any, rest)), None) => by_definition(rest, text),
        (Some((Piece::Any, rest)), Some((_, more))) => {
            by_definition(rest, text) || by_definition(pattern, more)
        }
        (Some((Piece::One, rest)), Some((_, more))) => by_definition(rest, more),
        (Some((Piece::Char(c), rest)), Some((d, more))) => c == d && by_definition(rest, more),
        _ => false,
    }
}

#[test]
fn patterns_fit_what_their_definition_says() {
    // Short texts over few letters meet every case; the random source is the system's.
    let pick = |letters: &str, byte: u8| letters.chars().nth(usize::from(byte) % letters.len());
    for _ in 0..20_000 {
        let random = id::random();
        let bytes = random.as_bytes();
        let (length, width) = (usize::from(bytes[0] % 8), usize::from(bytes[1] % 8));
        let p: String = bytes[2..2 + length]
            .iter()
            .filter_map(|b| pick("ab*?", *b))
            .collect();
        let t: String = bytes[12..12 + width]
            .iter()
            .filter_map(|b| pick("abc", *b))
            .collect();
        let p = pattern(&p);
        let chars: Vec<char> = t.chars().collect();
        assert_eq!(p.fits(&t), by_definition(&p.0, &chars), "{p:?} {t}");
    }
}

#[test]
fn a_hostile_pattern_takes_no_time() {
    let p = pattern(&"*a".repeat(2000));
    assert!(!p.fits(&format!("{}b", "a".repeat(2000))));
}

fn selects(selector: &str) -> bool {
    let hello = r#"{"os":"OpenWrt 24.10.2","arch":"mips","hostname":"gw","agent":{"version":"0.4.1","protocol":1},
        "labels":{"site":"Lyon","role":"a,b=c"},"instance":"f00d"}"#;
    let hello = RawValue::from_string(hello.to_owned()).unwrap();
    let attributes = BTreeMap::from([("floor".to_owned(), "3".to_owned())]);
    selector
        .parse::<Selector>()
        .unwrap_or_else(|e| panic!("{selector}: {e}"))
        .selects(&Facts {
            name: "gate-lyon",
            instance: "f00d",
            up: true,
            attributes: &attributes,
            hello: &Hello::read(Some(&hello)),
        })
}

#[test]
fn terms_are_about_what_is_known() {
    for selector in [
        "gate-*",
        "*",
        "gate-lyo?",
        "name=gate-lyon",
        "gate-lyon/f0*",
        "*/f00d",
        "os=OpenWrt*",
        "arch=mips",
        "hostname=g?",
        "version=0.4.*",
        "state=up",
        "label.site=Lyon",
        "attribute.floor=3",
        "!label.floor=*",
        "!state=down",
        "!!gate-*",
        " os = OpenWrt* , ! arch=arm* ",
        r"label.role=a\,b=c",
        "label.site=*,attribute.floor=3,state=up,gate-*",
    ] {
        assert!(selects(selector), "{selector}");
    }
    for selector in [
        "gate",
        "Gate-*",
        "gate-lyon/f0",
        r"gate-\*",
        "os=openwrt*",
        "state=down",
        "!gate-*",
        "label.other=*",
        "label.Site=Lyon",
        "attribute.site=Lyon",
        "gate-*,arch=arm",
        "version=0.4.",
    ] {
        assert!(!selects(selector), "{selector}");
    }
}

#[test]
fn a_plain_triton_is_known_by_name_and_state_only() {
    let agent = Facts {
        name: "old",
        instance: "plain",
        up: false,
        attributes: &BTreeMap::new(),
        hello: &Hello::read(None),
    };
    let selects = |s: &str| s.parse::<Selector>().unwrap().selects(&agent);
    assert!(selects("old,state=down") && selects("!os=*,!version=*"));
    assert!(!selects("os=*") && !selects("hostname=*"));
}

#[test]
fn errors_say_where_and_what() {
    for (selector, position, said) in [
        ("", 1, "a term is missing"),
        ("a,", 3, "a term is missing"),
        ("a,,b", 3, "a term is missing"),
        (",a", 1, "a term is missing"),
        ("!", 2, "a term is missing"),
        ("a,os=", 6, "behind os="),
        ("a,os= ,b", 6, "behind os="),
        ("colour=red", 1, "no key \"colour\""),
        ("a, label.=x", 4, "no key \"label.\""),
        ("=x", 1, "no key \"\""),
        ("state=sideways", 7, "up or down"),
        ("a, state= on", 11, "up or down"),
        ("a\\", 3, "backslash"),
    ] {
        let e = selector.parse::<Selector>().unwrap_err();
        assert_eq!(e.position, position, "{selector:?}: {e}");
        assert!(e.reason.contains(said), "{selector:?}: {e}");
    }
    assert!("x".repeat(5000).parse::<Selector>().is_err());
    assert!(vec!["x"; 65].join(",").parse::<Selector>().is_err());
}

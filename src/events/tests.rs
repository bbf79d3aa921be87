//! Events into a journal, and out of it again.

use super::*;
use crate::journal::Settings;

pub struct Stage {
    pub events: Events,
    pub folder: tempfile::TempDir,
}

pub fn events(folder: &std::path::Path) -> Events {
    let settings = Settings {
        folder: folder.join("journal"),
        state: folder.to_owned(),
        bytes: 1 << 20,
        memory_bytes: 1 << 18,
        sync: true,
        goes_on: None,
    };
    let journal = Arc::new(Journal::open(&settings).unwrap());
    Events::new(journal, Crew::new(|_| panic!("a thread died")), 512)
}

pub fn stage() -> Stage {
    stage_in(tempfile::tempdir().unwrap())
}

pub fn stage_in(folder: tempfile::TempDir) -> Stage {
    Stage {
        events: events(folder.path()),
        folder,
    }
}

pub fn line(name: &str) -> String {
    format!("CEF:0|v|p|1|s|{name}|5|src=192.0.2.1")
}

impl Stage {
    fn ask(&self, payload: &str) -> Message {
        let question = Message {
            payload: Some(payload.to_owned()),
            ..Message::new(payload::EVENT)
        };
        let answer = self.events.answer(&question, "command");
        assert_eq!(answer.conversation_id, question.id);
        answer
    }

    pub fn stored(&self) -> Vec<(f64, Value)> {
        let mut stored = Vec::new();
        let mut id = 0;
        while let Some(record) = self.events.journal.next(id) {
            id = record.id;
            assert_eq!(record.code, payload::code::EVENT);
            stored.push((
                record.etime,
                serde_json::from_str(record.data.get()).unwrap(),
            ));
        }
        stored
    }

    /// The names of the events that are stored.
    pub fn names(&self) -> Vec<String> {
        let name = |data: &Value| {
            let line = data["cef"].as_str().unwrap();
            cef::parse(line).unwrap().name.into_owned()
        };
        self.stored().iter().map(|(_, data)| name(data)).collect()
    }

    fn error(&self, payload: &str) -> Error {
        let answer = self.ask(payload);
        assert_eq!(answer.kind, payload::ERROR, "{payload}");
        answer.read().unwrap()
    }
}

#[test]
fn an_event_is_stored_as_it_came_without_its_prefix() {
    let stage = stage();
    let own = sysinfo::System::host_name().unwrap();
    let asked = [
        json!({"cef": line("a")}),
        json!({"cef": format!("<13>1 2026-11-21T10:00:00Z fw01 app - - - {}", line("b"))}),
        json!({"cef": format!("<13>1 2026-11-21T10:00:00Z fw01 - - - - {}", line("c")), "host": "x", "time": 5.25}),
    ];
    for (n, asked) in asked.iter().enumerate() {
        let answer = stage.ask(&asked.to_string());
        assert_eq!(answer.kind, payload::RESULT, "{:?}", answer.payload);
        let answer: Value = answer.read().unwrap();
        assert_eq!(answer["status"], "succeeded");
        assert_eq!(answer["sequence"], n as u64 + 1);
    }
    let xml = format!(
        "<e><events><cef>{}</cef><time>7</time></events></e>",
        line("d &amp; e")
    );
    assert_eq!(stage.ask(&xml).kind, payload::RESULT);
    let stored = stage.stored();
    let data =
        |host: &str, name: &str| json!({"host": host, "source": "command", "cef": line(name)});
    assert_eq!(stored[0].1, data(&own, "a"));
    assert!((stored[0].0 - clock::now()).abs() < 60.0);
    assert_eq!(stored[1], (1_795_255_200.0, data("fw01", "b")));
    assert_eq!(stored[2], (5.25, data("x", "c")));
    assert_eq!(stored[3], (7.0, data(&own, "d & e")));
    assert_eq!(stage.events.report().stored, 4);
}

#[test]
fn a_list_is_stored_as_a_whole_or_not_at_all() {
    let stage = stage();
    let list = |names: &[&str]| {
        let events: Vec<Value> = names.iter().map(|n| json!({"cef": line(n)})).collect();
        json!({ "events": events }).to_string()
    };
    let answer: Value = stage.ask(&list(&["a", "b", "c"])).read().unwrap();
    assert_eq!(answer["sequence"], 3);
    let error = stage.error(&list(&["d", "", "f"]));
    assert_eq!(error.code, ErrorCode::Invalid);
    assert!(error.message.starts_with("event 2: ") && error.message.contains("the name is empty"));
    assert_eq!(stage.names(), ["a", "b", "c"]);
    let many = list(&["x"; BATCH + 1]);
    assert_eq!(stage.error(&many).code, ErrorCode::TooLarge);
    assert_eq!(stage.ask(&list(&["x"; BATCH])).kind, payload::RESULT);
}

#[test]
fn what_is_wrong_is_said_and_where() {
    let stage = stage();
    let long = json!({"cef": line(&"x".repeat(512))}).to_string();
    for (asked, code, part) in [
        ("{}", ErrorCode::Invalid, "cef is missing"),
        (r#"{"cef":7}"#, ErrorCode::Invalid, "cef is missing"),
        (r#"{"cef":"hello"}"#, ErrorCode::Invalid, "no CEF:"),
        (
            r#"{"cef":"x CEF:0|a|b|c|d|e|5|"}"#,
            ErrorCode::Invalid,
            "no syslog prefix",
        ),
        // As the sender counts, the prefix included.
        (
            r#"{"cef":"<13>CEF:0|a|b|c|d|e|55|"}"#,
            ErrorCode::Invalid,
            "at byte 20: the severity",
        ),
        (
            r#"{"cef":"CEF:0|a|b|c|d|e|5|\n"}"#,
            ErrorCode::Invalid,
            "line end",
        ),
        (
            r#"{"cef":"CEF:0|a|b|c|d|e|5|","time":"soon"}"#,
            ErrorCode::Invalid,
            "Unix time",
        ),
        (
            r#"{"cef":"CEF:0|a|b|c|d|e|5|","time":"inf"}"#,
            ErrorCode::Invalid,
            "Unix time",
        ),
        (
            r#"{"cef":"CEF:0|a|b|c|d|e|5|","time":1e300}"#,
            ErrorCode::Invalid,
            "1970 to 9999",
        ),
        (
            r#"{"cef":"CEF:0|a|b|c|d|e|5|","time":-1}"#,
            ErrorCode::Invalid,
            "1970 to 9999",
        ),
        (
            r#"{"cef":"CEF:0|a|b|c|d|e|5|","time":253402300800}"#,
            ErrorCode::Invalid,
            "1970 to 9999",
        ),
        (
            r#"{"cef":"CEF:0|a|b|c|d|e|5|","host":""}"#,
            ErrorCode::Invalid,
            "host has 1 to 255",
        ),
        (
            r#"{"cef":"CEF:0|a|b|c|d|e|5|","host":7}"#,
            ErrorCode::Invalid,
            "host is no text",
        ),
        (
            r#"{"cef":"CEF:0|a|b|c|d|e|5|","events":[]}"#,
            ErrorCode::Invalid,
            "not both",
        ),
        (r#"{"events":[]}"#, ErrorCode::Invalid, "empty"),
        (r#"{"events":"x"}"#, ErrorCode::Invalid, "no list"),
        ("[]", ErrorCode::Invalid, "JSON object"),
        (&long, ErrorCode::TooLarge, "events.line_bytes"),
    ] {
        let error = stage.error(asked);
        assert_eq!(error.code, code, "{asked}: {error:?}");
        assert!(error.message.contains(part), "{asked}: {error:?}");
    }
    assert_eq!(stage.names(), [""; 0]);
}

#[test]
fn a_prefix_of_a_time_before_1970_tells_none() {
    let stage = stage();
    let asked = [
        json!({"cef": format!("<13>1 1969-12-31T23:59:59Z fw01 - - - - {}", line("a"))}),
        json!({"cef": line("b"), "time": 253_402_300_799.5}),
    ];
    for asked in asked {
        assert_eq!(stage.ask(&asked.to_string()).kind, payload::RESULT);
    }
    let stored = stage.stored();
    assert!((stored[0].0 - clock::now()).abs() < 60.0);
    assert_eq!(stored[0].1["host"], "fw01");
    assert!((stored[1].0 - 253_402_300_799.5).abs() < 0.1);
}

#[test]
fn while_offline_a_burst_costs_one_sync_and_a_later_one() {
    let stage = stage();
    let syncs = || stage.events.journal.report().syncs;
    let before = syncs();
    for n in 0..20 {
        stage.ask(&json!({"cef": line(&n.to_string())}).to_string());
    }
    // The first at once; the others when a thread of its own does it, at most 5 s later.
    assert!(syncs() - before <= 1);
    assert!(stage.events.journal.sync_due().is_some());
    let begun = Instant::now();
    while stage.events.journal.sync_due().is_some() {
        assert!(begun.elapsed() < Duration::from_mins(1));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!((1..=2).contains(&(syncs() - before)));
}

#[test]
fn what_is_too_much_at_once_is_stored_one_by_one() {
    let stage = stage();
    let event = Event {
        line: line(&"x".repeat(450)),
        ..Event::default()
    };
    let one = stage.events.check("syslog/unix", &event, None).unwrap();
    let many = vec![one; 700];
    let refused = stage.events.put(many.clone()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    assert_eq!(
        stage.events.put_all(many).unwrap(),
        stage.events.journal.last()
    );
    let tally = stage.events.report();
    assert_eq!((tally.stored, tally.refused), (700, 0));
}

//! Events into a journal, and out of it again.

use super::follow::Files;
use super::*;
use crate::journal::Settings;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

struct Stage {
    events: Events,
    folder: tempfile::TempDir,
}

fn events(folder: &std::path::Path) -> Events {
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

fn stage() -> Stage {
    let folder = tempfile::tempdir().unwrap();
    Stage {
        events: events(folder.path()),
        folder,
    }
}

fn line(name: &str) -> String {
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

    fn stored(&self) -> Vec<(f64, Value)> {
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
    fn names(&self) -> Vec<String> {
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

/// Followed files, looked at by hand.
struct Followers {
    stage: Stage,
    files: Files,
    path: PathBuf,
}

impl Followers {
    fn new() -> Self {
        let stage = stage();
        let path = stage.folder.path().join("app.log");
        let files = Self::files(&stage, &path);
        Self { stage, files, path }
    }

    fn files(stage: &Stage, path: &std::path::Path) -> Files {
        Files::open(
            &[path.to_owned()],
            1_000,
            stage.folder.path(),
            &stage.events,
        )
    }

    fn look(&mut self) {
        let mut buffer = Vec::new();
        for _ in 0..4 {
            self.files.look(&self.stage.events, &mut buffer);
        }
    }

    /// As after a rotation, when nobody writes to the old file any more.
    fn look_for_long(&mut self) {
        self.look();
        std::thread::sleep(Duration::from_millis(2_100));
        self.look();
    }

    fn append(&self, name: &str, text: &str) {
        let path = self.path.with_file_name(name);
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn event(&self, name: &str) {
        self.append("app.log", &(line(name) + "\n"));
    }

    /// A start after a power cut or `kill -9`: nothing is written that was not.
    fn restart(&mut self) {
        let folder = self.stage.folder.path();
        // The journal's folder is locked by the one before, which the thread that syncs may have yet.
        while Arc::strong_count(&self.stage.events.journal) > 1 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let nowhere = tempfile::tempdir().unwrap();
        self.stage.events = events(nowhere.path());
        self.stage.events = events(folder);
        self.files = Self::files(&self.stage, &self.path);
    }
}

#[test]
fn a_file_is_followed_from_its_end_and_a_new_one_from_its_beginning() {
    let mut new = Followers::new();
    new.look();
    new.event("a");
    new.look();
    assert_eq!(new.stage.names(), ["a"]);
    assert_eq!(
        new.stage.stored()[0].1["source"],
        format!("file{}", new.path.display())
    );

    let mut old = Followers::new();
    old.event("before");
    old.look();
    old.event("after");
    old.append(
        "app.log",
        "Nov 21 10:00:00 fw01 sshd: no event\nCEF:0|bad\n",
    );
    old.append(
        "app.log",
        &format!("Nov 21 10:00:00 fw01 ids: {}\r\n", line("prefixed")),
    );
    old.look();
    assert_eq!(old.stage.names(), ["after", "prefixed"]);
    let tally = old.stage.events.report();
    assert_eq!((tally.stored, tally.passed, tally.refused), (2, 1, 1));
    assert!(tally.reason.unwrap().contains("within the field"));
}

#[test]
fn a_line_counts_when_it_is_whole_and_not_too_long() {
    let mut files = Followers::new();
    files.look();
    let (first, rest) = (line("a"), line("a").split_off(10));
    files.append("app.log", &first[..10]);
    files.look();
    files.append("app.log", &rest);
    files.look();
    assert_eq!(files.stage.names(), [""; 0]);
    files.append("app.log", "\n");
    files.look();
    files.append("app.log", &"x".repeat(5_000));
    files.look();
    files.append("app.log", &(line("within") + "\n"));
    files.event("b");
    files.append(
        "app.log",
        &format!("{}\n{}\n", line(&"y".repeat(600)), line("c")),
    );
    files.look();
    assert_eq!(files.stage.names(), ["a", "b", "c"]);
    assert_eq!(files.stage.events.report().refused, 2);
}

#[test]
fn the_tail_of_a_line_that_is_too_long_is_never_a_line() {
    let mut files = Followers::new();
    files.look();
    files.append("app.log", &"x".repeat(5_000));
    files.look();
    // The journal has no room: what is behind is read twice.
    let journal = Arc::clone(&files.stage.events.journal);
    for bytes in [4_000, 200, 1] {
        let put = payload::HistoryPut {
            token: None,
            code: Some(200),
            etime: None,
            data: json!("y".repeat(bytes)),
        };
        let refused = (0..2_000).find_map(|_| journal.put(&put).err());
        assert_eq!(refused.unwrap().code, ErrorCode::Busy, "it is never full");
    }
    files.append("app.log", &(line("within") + "\n"));
    files.event("a");
    files.look();
    let report = files.stage.events.report();
    assert_eq!(report.stored, 0, "there was room");
    let last = journal.last();
    journal.acknowledge(last);
    files.look();
    let stored = |journal: &Journal| {
        let mut stored = Vec::new();
        let mut id = last;
        while let Some(record) = journal.next(id) {
            id = record.id;
            stored.push(record.data.get().to_owned());
        }
        stored
    };
    let found = stored(&journal);
    assert!(found.len() == 1 && found[0].contains("|a|"), "{found:?}");
    drop(journal);
    // So it is over a restart.
    files.append("app.log", &"x".repeat(5_000));
    files.look();
    files.files.save(&files.stage.events);
    files.restart();
    files.append("app.log", &(line("within") + "\n"));
    files.event("b");
    files.look();
    let found = stored(&files.stage.events.journal);
    assert!(found.len() == 2 && found[1].contains("|b|"), "{found:?}");
}

#[test]
fn rotation_by_rename_loses_nothing() {
    let mut files = Followers::new();
    files.look();
    files.event("a");
    files.look();
    files.event("b");
    fs::rename(&files.path, files.path.with_file_name("app.log.1")).unwrap();
    files.look();
    files.event("d");
    files.look();
    // Who writes has the old file open for a while.
    files.append("app.log.1", &(line("c") + "\n"));
    files.look_for_long();
    files.event("e");
    files.look();
    assert_eq!(files.stage.names(), ["a", "b", "c", "d", "e"]);
}

#[test]
fn truncation_loses_nothing_that_was_copied() {
    let mut files = Followers::new();
    files.look();
    files.event("a");
    files.look();
    files.event("b");
    fs::copy(&files.path, files.path.with_file_name("app.log.1")).unwrap();
    fs::write(&files.path, "").unwrap();
    files.event("c");
    files.look_for_long();
    // Truncated under a writer that goes on behind: a hole.
    fs::write(&files.path, "").unwrap();
    files.look_for_long();
    let file = OpenOptions::new().write(true).open(&files.path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, (line("d") + "\n").as_bytes(), 9_000).unwrap();
    files.look();
    assert_eq!(files.stage.names(), ["a", "b", "c", "d"]);
    // No copy: what came after the cut is there.
    fs::write(&files.path, line("x") + "\n").unwrap();
    files.event("y");
    files.look_for_long();
    assert_eq!(files.stage.names(), ["a", "b", "c", "d", "x", "y"]);
}

#[test]
fn a_restart_goes_on_where_it_was_also_after_kill_9() {
    let mut files = Followers::new();
    files.look();
    for name in ["a", "b", "c"] {
        files.event(name);
    }
    files.look();
    // Positions were written when the file was found, not since.
    files.restart();
    files.event("d");
    files.look();
    assert_eq!(files.stage.names(), ["a", "b", "c", "d"]);
    // Rotated in between, with something that was not read yet.
    files.event("e");
    files.look();
    files.event("f");
    fs::rename(&files.path, files.path.with_file_name("app.log.1")).unwrap();
    files.event("g");
    files.restart();
    files.look_for_long();
    files.event("h");
    files.look();
    assert_eq!(
        files.stage.names(),
        ["a", "b", "c", "d", "e", "f", "g", "h"]
    );
    // An orderly end.
    files.files.save(&files.stage.events);
    files.event("i");
    files.restart();
    files.look();
    assert_eq!(files.stage.names().len(), 9);
}

#[test]
fn pipes_and_devices_are_refused_and_a_lost_state_is_said() {
    let stage = stage();
    let mut files = Files::open(
        &["/dev/null".into(), "/dev".into()],
        10,
        std::path::Path::new("/proc/nowhere"),
        &stage.events,
    );
    files.look(&stage.events, &mut Vec::new());
    for (_, problem) in files.report() {
        assert_eq!(problem.as_deref(), Some("it is no regular file"));
    }
    fs::write(stage.folder.path().join("events.json"), "{broken").unwrap();
    let path = stage.folder.path().join("app.log");
    fs::write(&path, line("old") + "\n").unwrap();
    let mut files = Files::open(&[path], 10, stage.folder.path(), &stage.events);
    files.look(&stage.events, &mut Vec::new());
    assert_eq!(stage.names(), [""; 0]);
}

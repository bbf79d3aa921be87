//! What an entry may be.

use super::super::entry::{Entry, Overlap, by_snake, from_xml, snake};
use super::{read_set, request};
use crate::job::Work;
use crate::message::payload::OutputMode;
use crate::outbox::{Limits, Outbox};
use crate::scripts::{Attributes, Repository};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

fn with(more: &Value) -> Value {
    let mut entry = json!({"name": "a", "cron": "0 2 * * *"});
    for (name, value) in more.as_object().unwrap() {
        entry[name] = value.clone();
    }
    entry
}

#[test]
fn an_entry_gets_its_defaults() {
    let entry = Entry::read(&with(&json!({"command": ["id", "-u"], "timeZone": null}))).unwrap();
    assert_eq!(entry.command.argv.unwrap(), ["id", "-u"]);
    assert_eq!(entry.command.output, OutputMode::Discard);
    assert!(entry.enabled && !entry.catch_up && entry.zone.is_none());
    assert_eq!((entry.jitter, entry.overlap), (0, Overlap::Skip));
    let all = json!({
        "shell": "date >> /tmp/x", "timeZone": "CET-1", "jitterSeconds": 30, "catchUp": true, "overlap": "queue",
        "enabled": false, "user": "nobody", "cwd": "/tmp", "env": {"A": "b"}, "timeoutSeconds": 2.5, "nice": 10,
        "memoryBytes": 1_000_000, "output": "collect",
    });
    let entry = Entry::read(&with(&all)).unwrap();
    assert_eq!(entry.command.timeout_seconds, Some(2.5));
    assert_eq!(entry.command.env["A"], "b");
    assert_eq!(entry.command.output, OutputMode::Collect);
    assert_eq!((entry.jitter, entry.overlap), (30, Overlap::Queue));
    assert!(!entry.enabled && entry.catch_up);
}

#[test]
fn what_makes_no_sense_is_refused_by_its_field() {
    let long = "x".repeat(65);
    for (more, field, said) in [
        (json!({}), "", "one of script, command and shell"),
        (json!({"shell": "a", "command": ["b"]}), "", "one of"),
        (json!({"shell": "a", "name": ""}), "name", "1 to 64"),
        (json!({"shell": "a", "name": long}), "name", "1 to 64"),
        (json!({"shell": "a", "name": "a b"}), "name", "letters"),
        (json!({"shell": "a", "name": "a/b"}), "name", "letters"),
        (json!({"shell": "a", "cron": null}), "cron", "missing"),
        (json!({"shell": "a", "cron": 5}), "cron", "a text"),
        (
            json!({"shell": "a", "cron": "61 * * * *"}),
            "cron",
            "0 to 59",
        ),
        (
            json!({"shell": "a", "cron": "0 0 30 2 *"}),
            "cron",
            "never comes",
        ),
        (
            json!({"shell": "a", "timeZone": "../x"}),
            "timeZone",
            "POSIX",
        ),
        (
            json!({"shell": "a", "jitterSeconds": -1}),
            "jitterSeconds",
            "0 to 86400",
        ),
        (
            json!({"shell": "a", "jitterSeconds": 1e9}),
            "jitterSeconds",
            "0 to 86400",
        ),
        (
            json!({"shell": "a", "cron": "* * * * *", "jitterSeconds": 61}),
            "jitterSeconds",
            "60 s between",
        ),
        (
            json!({"shell": "a", "catchUp": "yes"}),
            "catchUp",
            "true or false",
        ),
        (
            json!({"shell": "a", "overlap": "both"}),
            "overlap",
            "skip, queue, allow",
        ),
        (
            json!({"shell": "a", "output": "stream"}),
            "output",
            "collect",
        ),
        (json!({"shell": "a", "output": "x"}), "", "x"),
        (json!({"shell": "a", "args": ["x"]}), "args", "script"),
        (json!({"script": "../x"}), "script", "relative path"),
        (json!({"script": ".hidden"}), "script", "dot"),
        (json!({"command": "id"}), "command", "a list"),
        (json!({"command": []}), "", "name of a program"),
        (json!({"command": ["a", 7]}), "command", "a list of texts"),
        (json!({"shell": "a", "nice": 99}), "", "nice"),
        (json!({"shell": "a", "cwd": "tmp"}), "", "absolute"),
        (json!({"shell": "a", "env": {"A=B": "c"}}), "", "A=B"),
        (
            json!({"shell": "a", "stdin": "aGk="}),
            "",
            "\"stdin\" is no field",
        ),
        (
            json!({"shell": "a", "catchup": true}),
            "",
            "\"catchup\" is no field",
        ),
        (
            json!({"shell": "a", "time_zone": "UTC"}),
            "",
            "\"time_zone\" is no field of an entry; timeZone is",
        ),
    ] {
        let fault = Entry::read(&with(&more)).expect_err(&more.to_string());
        assert_eq!(fault.field, field, "{more}: {}", fault.why);
        assert!(fault.why.contains(said), "{more}: {}", fault.why);
    }
    assert!(Entry::read(&json!([])).is_err());
}

#[test]
fn a_set_is_whole_or_refused() {
    let entry = |name: &str| json!({"name": name, "cron": "@daily", "shell": "true"});
    let (revision, entries) =
        read_set(&json!({"revision": "r1", "entries": [entry("a"), entry("b")]})).unwrap();
    assert_eq!((revision.as_str(), entries.len()), ("r1", 2));
    assert_eq!(
        read_set(&json!({"revision": 7, "entries": []})).unwrap().0,
        "7"
    );
    let many: Vec<Value> = (0..257).map(|n| entry(&format!("e{n}"))).collect();
    for (set, said) in [
        (json!({"entries": []}), "revision"),
        (
            json!({"revision": "x".repeat(65), "entries": []}),
            "revision",
        ),
        (json!({"revision": "1"}), "no list"),
        (json!({"revision": "1", "entries": {}}), "no list"),
        (
            json!({"revision": "1", "entries": [entry("a"), entry("a")]}),
            "entry 2 (a): name: entry 1 has it already",
        ),
        (json!({"revision": "1", "entries": many}), "256 are allowed"),
        (
            json!({"revision": "1", "entries": [entry("a"), {"name": "b"}]}),
            "entry 2 (b): cron: is missing",
        ),
        (json!("x"), "revision"),
    ] {
        let error = read_set(&set).unwrap_err();
        assert!(error.contains(said), "{set}: {error}");
    }
}

#[test]
fn the_texts_of_xml_become_what_the_fields_are() {
    let mut entry = json!({
        "name": "7", "cron": "@daily", "command": "id", "jitterSeconds": " 30 ", "catchUp": "true", "env": "",
        "timeoutSeconds": "2.5", "overlap": "queue", "nice": "x",
    });
    from_xml(&mut entry);
    let wanted = json!({
        "name": "7", "cron": "@daily", "command": ["id"], "jitterSeconds": 30, "catchUp": true, "env": null,
        "timeoutSeconds": 2.5, "overlap": "queue", "nice": "x",
    });
    assert_eq!(entry, wanted);
}

#[test]
fn names_of_the_file_and_of_messages_go_into_one_another() {
    assert_eq!(snake("jitterSeconds"), "jitter_seconds");
    assert_eq!(by_snake("time_zone"), Some("timeZone"));
    assert_eq!(by_snake("timeZone"), None);
}

#[test]
fn a_run_is_a_job_of_the_entrys_name() {
    let limits = Limits {
        control: 1,
        output_bytes: 1,
    };
    let sink = Arc::new(Outbox::new(limits).unwrap());
    let entry = Entry::read(&with(&json!({"shell": "true"}))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let attributes = Arc::new(Attributes::open(folder.path()));
    let scripts = Repository::open(folder.path(), BTreeMap::new(), attributes);
    let job = request(&entry, "t", &scripts, &sink).unwrap();
    assert_eq!((job.name.as_deref(), job.token.as_str()), (Some("a"), "t"));
    let Work::Command(command) = job.work else {
        panic!("no command")
    };
    assert_eq!(command.shell.as_deref(), Some("true"));
    let entry = Entry::read(&with(&json!({"script": "a.sh", "args": ["x"]}))).unwrap();
    let error = request(&entry, "t", &scripts, &sink).unwrap_err();
    assert!(error.message.contains("no scripts"), "{error:?}");
}

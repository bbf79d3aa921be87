//! `file.put`.

use crate::central::{Central, data, error, noise, sha256};
use crate::support::agent::Agent;
use crate::support::eventually;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command;
use triton::message::text;

/// What is in a folder, hidden or not.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<_> = entries
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// No temporary file, no note.
#[track_caller]
pub fn assert_nothing_left(agent: &Agent, folder: &Path, there: &[&str]) {
    assert_eq!(names(folder), there);
    let notes = agent.state().join("transfers");
    assert!(!notes.exists() || names(&notes).is_empty());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_file_arrives_with_all_that_was_asked_for() {
    let central = Central::new();
    let agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new file");
    let bytes = noise(3_000_000);
    let done = data(central.put(&path, &bytes, json!({})));
    let wanted = json!({"path": path, "size": 3_000_000, "sha256": sha256(&bytes), "changed": true, "resumed": 0});
    assert_eq!(done, wanted);
    assert!(fs::read(&path).unwrap() == bytes);
    assert_eq!(mode(&path), 0o644);
    let progress = central.progress();
    assert!(
        progress.len() > 10 && progress.last() == Some(&100.0),
        "{progress:?}"
    );
    assert!(progress.is_sorted());

    let more = json!({"mode": "4750", "owner": "1234", "group": 4321, "mtime": 1_000_000_000.5});
    data(central.put(&path, b"other", more));
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 4321));
    assert_eq!(
        (metadata.mtime(), metadata.mtime_nsec()),
        (1_000_000_000, 500_000_000)
    );
    assert_eq!(mode(&path), 0o4750);
    // What is replaced keeps what it had, unless it is told otherwise.
    data(central.put(&path, b"third", json!({"mode": "0600"})));
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 4321));
    assert_eq!(mode(&path), 0o600);
    data(central.put(&path, b"", json!({})));
    assert_eq!((fs::read(&path).unwrap().len(), mode(&path)), (0, 0o600));
    assert_nothing_left(&agent, folder.path(), &["new file"]);
}

#[test]
fn what_is_there_already_is_not_fetched() {
    let central = Central::new();
    let _agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let bytes = noise(100_000);
    let put = |more: Value| data(central.put(&path, &bytes, more));
    assert_eq!(put(json!({"ifChanged": true}))["changed"], true);
    let (inode, given) = (fs::metadata(&path).unwrap().ino(), central.given());
    assert_eq!(put(json!({"ifChanged": true}))["changed"], false);
    // Mode and the like are set all the same.
    assert_eq!(
        put(json!({"ifChanged": true, "mode": "0711"}))["changed"],
        true
    );
    assert_eq!(mode(&path), 0o711);
    assert_eq!(
        (fs::metadata(&path).unwrap().ino(), central.given()),
        (inode, given)
    );
    // The same length, but not the same.
    let mut other = bytes.clone();
    other[99_999] ^= 1;
    let done = data(central.put(&path, &other, json!({"ifChanged": true})));
    assert_eq!(done["changed"], true);
    assert!(fs::read(&path).unwrap() == other);
}

#[test]
fn what_makes_no_sense_is_refused_and_leaves_nothing() {
    let central = Central::new();
    let agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, "old").unwrap();
    for (more, code, said) in [
        (json!({"path": "x"}), "invalid", "not absolute"),
        (json!({"path": "/tmp/../etc/x"}), "invalid", ". or .."),
        (json!({"path": "/tmp/a\u{0}b"}), "invalid", "NUL"),
        (json!({"path": "/tmp/a\nb"}), "invalid", "end of a line"),
        (json!({"size": null}), "invalid", "size is missing"),
        (json!({"size": -1}), "invalid", ""),
        (json!({"size": u64::MAX}), "invalid", "larger than any"),
        (json!({"sha256": "x"}), "invalid", "64 lower-case hex"),
        (json!({"ref": ""}), "invalid", "ref must"),
        (json!({"mode": "rw"}), "invalid", "octal"),
        (json!({"mtime": -5}), "invalid", "no time"),
        (json!({"owner": "no-such-user"}), "not-found", "no user"),
        (json!({"group": "no-such-group"}), "not-found", "no group"),
        (
            json!({"ref": "sha256:none"}),
            "not-found",
            "no such content",
        ),
        (
            json!({"size": 1_i64 << 60}),
            "no-space",
            "files.reserve_bytes",
        ),
        (json!({"sha256": "0".repeat(64)}), "invalid", "SHA-256 is"),
        (json!({"size": 9}), "invalid", "goes on behind"),
        (json!({"size": 11}), "invalid", "ends after 10"),
        (json!({"path": "/no/such/folder/x"}), "not-found", "parents"),
        (json!({"path": "/etc/passwd/x"}), "io", "Not a directory"),
    ] {
        let (was, text) = error(central.put(&path, b"0123456789", more.clone()));
        assert_eq!(was, code, "{more}: {text}");
        assert!(text.contains(said), "{more}: {text}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_nothing_left(&agent, folder.path(), &["x"]);
}

#[test]
fn a_target_that_is_no_file_stays() {
    let central = Central::new();
    let agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "old").unwrap();
    symlink("file", at("link")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(at("fifo"))
            .status()
            .unwrap()
            .success()
    );
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for (name, said) in [
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("folder", "a folder"),
        ("fifo", "a named pipe"),
        ("socket", "a socket"),
    ] {
        let (code, text) = error(central.put(&at(name), b"new", json!({"ifChanged": true})));
        assert_eq!(code, "refused");
        assert!(text.contains(said), "{text}");
    }
    let (_, text) = error(central.put(Path::new("/dev/null"), b"new", json!({})));
    assert!(text.contains("a device"), "{text}");
    assert_eq!(fs::read(at("file")).unwrap(), b"old");
    // A link on the way is the operator's choice.
    symlink(at("folder"), at("way")).unwrap();
    data(central.put(&at("way/new"), b"new", json!({})));
    assert_eq!(fs::read(at("folder/new")).unwrap(), b"new");
    let all = [
        "dangling", "fifo", "file", "folder", "link", "socket", "way",
    ];
    assert_nothing_left(&agent, folder.path(), &all);
}

#[test]
fn missing_folders_are_made_and_go_with_a_put_that_fails() {
    let central = Central::new();
    let _agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/c/x");
    let wrong = json!({"parents": true, "sha256": "0".repeat(64)});
    error(central.put(&path, b"x", wrong));
    assert!(names(folder.path()).is_empty());
    data(central.put(&path, b"x", json!({"parents": true})));
    assert_eq!(fs::read(&path).unwrap(), b"x");
    assert_eq!(mode(&folder.path().join("a/b")), 0o755);
}

#[test]
fn zeros_are_holes() {
    let central = Central::new();
    let _agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let mut bytes = vec![0; 20 << 20];
    bytes[10 << 20..][..5_000].copy_from_slice(&noise(5_000));
    data(central.put(&path, &bytes, json!({})));
    assert!(fs::read(&path).unwrap() == bytes);
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < 100_000);
}

#[test]
fn a_small_limit_of_messages_is_kept() {
    let central = Central::new();
    let _agent = central.agent_with("[limits]\nmessage_bytes = 16384\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let bytes = noise(1_000_000);
    data(central.put(&path, &bytes, json!({})));
    assert!(fs::read(&path).unwrap() == bytes);
}

#[test]
fn two_puts_to_one_path_do_not_mix() {
    let central = Central::new();
    let _agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    central.twist(|_, _| None);
    let first = central.ask("file.put", &central.put_of(&path, &noise(1_000), json!({})));
    eventually("it has begun", || {
        (names(folder.path()).len() == 1).then_some(())
    });
    for other in [path.clone(), path.join("below")] {
        let (code, text) = error(central.put(&other, b"other", json!({})));
        assert_eq!(code, "busy", "{text}");
    }
    central.run("cancel", &json!({"job": first})).unwrap();
    assert_eq!(central.end(&first).unwrap()["status"], "cancelled");
    central.straight();
    data(central.put(&path, b"other", json!({})));
    assert_eq!(names(folder.path()), ["x"]);
}

#[test]
fn cancel_silence_and_timeout_leave_the_old_file_alone() {
    let central = Central::new();
    let agent = central.agent_with("[files]\nidle_seconds = 1\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, "old").unwrap();
    // After some of it.
    central.twist(|request, answer| (request.offset < 400_000).then_some(answer));
    let begin = |more| central.ask("file.put", &central.put_of(&path, &noise(3_000_000), more));
    let partly = || {
        eventually("some of it is there", || {
            let there = fs::read_dir(folder.path()).unwrap().flatten();
            let mut sizes = there.map(|e| e.metadata().map_or(0, |m| m.len()));
            sizes.any(|size| size > 300_000).then_some(())
        });
    };
    let token = begin(json!({}));
    partly();
    central.run("cancel", &json!({"job": token})).unwrap();
    assert_eq!(central.end(&token).unwrap()["status"], "cancelled");
    assert_nothing_left(&agent, folder.path(), &["x"]);

    let ended = central.end(&begin(json!({}))).unwrap();
    assert_eq!(ended["status"], "timed-out");
    assert!(
        ended["message"]
            .as_str()
            .unwrap()
            .contains("files.idle_seconds")
    );
    assert_nothing_left(&agent, folder.path(), &["x"]);

    let ended = central.end(&begin(json!({"timeoutSeconds": 0.3}))).unwrap();
    assert_eq!(ended["status"], "timed-out");
    assert!(
        ended["message"]
            .as_str()
            .unwrap()
            .contains("its time was up")
    );
    assert_nothing_left(&agent, folder.path(), &["x"]);
    assert_eq!(fs::read(&path).unwrap(), b"old");
}

#[test]
fn the_answers_base64_is_checked() {
    let central = Central::new();
    let agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    central.twist(|_, mut answer| {
        answer.data = format!("{}!", text::encode(b"x"));
        Some(answer)
    });
    let (code, text) = error(central.put(&folder.path().join("x"), b"xyz", json!({})));
    assert_eq!(code, "invalid");
    assert!(text.contains("base64"), "{text}");
    assert_nothing_left(&agent, folder.path(), &[]);
}

//! `file.get` and `file.list`.

use crate::central::{Central, data, error, noise, sha256};
use crate::support::eventually;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

#[test]
fn a_file_is_given_from_any_offset() {
    let central = Central::new();
    let agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    for length in [0, 1, 65_536, 2_000_001] {
        let bytes = noise(length);
        fs::write(&path, &bytes).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        for offset in [0, length / 3, length] {
            let request = json!({"path": path, "offset": offset});
            let token = central.ask("file.get", &request);
            let given = data(central.end(&token));
            assert_eq!(given["sha256"], sha256(&bytes), "of the whole");
            assert_eq!(given["size"], length);
            assert_eq!(
                (&given["mode"], &given["owner"]),
                (&json!("0640"), &json!("root"))
            );
            assert_eq!(central.offers().last().unwrap()["offset"], offset);
            assert!(central.taken(&token) == bytes[offset..]);
        }
    }
    let (code, _) = error(central.run("file.get", &json!({"path": path, "offset": 9_000_000})));
    assert_eq!(code, "invalid");
    // Cuts cost nothing but time.
    let bytes = noise(30_000_000);
    fs::write(&path, &bytes).unwrap();
    central.cut_after(7_000_000);
    let token = central.ask("file.get", &json!({"path": path}));
    data(central.end_with_nudges(&token, &agent));
    assert!(central.taken(&token) == bytes);
    assert!(central.cuts() >= 3);
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let central = Central::new();
    let _agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "content").unwrap();
    symlink("file", at("link")).unwrap();
    symlink("fifo", at("to-fifo")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(at("fifo"))
            .status()
            .unwrap()
            .success()
    );
    for (name, follow, code, said) in [
        ("link", false, "refused", "a symbolic link to file; "),
        ("fifo", false, "refused", "a named pipe"),
        ("fifo", true, "refused", "a named pipe"),
        ("to-fifo", true, "refused", "a named pipe"),
        ("", false, "refused", "a folder"),
        ("none", false, "not-found", "there is no "),
        ("none", true, "not-found", "cannot look at"),
    ] {
        let path = folder.path().join(name);
        let path = path.to_str().unwrap().trim_end_matches('/');
        let end = central.run("file.get", &json!({"path": path, "follow": follow}));
        let (was, text) = error(end);
        assert_eq!(was, code, "{name}: {text}");
        assert!(text.contains(said), "{name}: {text}");
    }
    let (_, text) = error(central.run("file.get", &json!({"path": "/dev/zero"})));
    assert!(text.contains("a device"), "{text}");
    let token = central.ask("file.get", &json!({"path": at("link"), "follow": true}));
    data(central.end(&token));
    assert_eq!(central.taken(&token), b"content");
}

#[test]
fn files_that_the_kernel_writes_are_read_to_their_end() {
    let central = Central::new();
    let _agent = central.agent();
    for path in [
        "/proc/version",
        "/proc/filesystems",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ] {
        let Ok(content) = fs::read(path) else {
            continue;
        };
        let token = central.ask("file.get", &json!({"path": path}));
        let given = data(central.end(&token));
        assert_eq!(given["size"], content.len(), "{path}");
        assert_eq!(central.taken(&token), content, "{path}");
    }
}

#[test]
fn a_file_that_changes_on_the_way_is_no_file() {
    let central = Central::new();
    let _agent = central.agent_with("[files]\nidle_seconds = 1\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, noise(60_000_000)).unwrap();
    let token = central.ask("file.get", &json!({"path": path}));
    eventually("it has begun", || {
        (!central.offers().is_empty()).then_some(())
    });
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.write_all(b"more").unwrap();
    let (code, text) = error(central.end(&token));
    assert_eq!(code, "changed", "{text}");
}

fn list(central: &Central, request: &Value) -> (Value, BTreeMap<String, Value>) {
    let token = central.ask("file.list", request);
    let done = data(central.end(&token));
    let output = central.output(&token);
    let entry = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    let entries = output.lines().map(entry);
    let entries = entries.map(|e| (e["name"].as_str().unwrap().to_owned(), e));
    (done, entries.collect())
}

#[test]
fn a_folder_is_listed_without_touching_what_is_in_it() {
    let central = Central::new();
    let _agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("fi\"le"), "content").unwrap();
    fs::set_permissions(at("fi\"le"), PermissionsExt::from_mode(0o4711)).unwrap();
    symlink("/no/where", at("link")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(at("fifo"))
            .status()
            .unwrap()
            .success()
    );
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    std::os::unix::fs::chown(at("folder"), Some(54_321), Some(54_322)).unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o710)).unwrap();
    let (done, entries) = list(&central, &json!({"path": folder.path()}));
    assert_eq!(
        done,
        json!({"path": folder.path(), "type": "directory", "mode": "0710", "entries": 5, "more": false})
    );
    let kinds: Vec<_> = entries
        .iter()
        .map(|(n, e)| (n.as_str(), e["type"].as_str().unwrap()))
        .collect();
    let wanted = [
        ("fi\"le", "file"),
        ("fifo", "fifo"),
        ("folder", "directory"),
        ("link", "symlink"),
        ("socket", "socket"),
    ];
    assert_eq!(kinds, wanted);
    let file = &entries["fi\"le"];
    assert_eq!((&file["size"], &file["mode"]), (&json!(7), &json!("4711")));
    assert_eq!(
        (&file["owner"], &file["group"]),
        (&json!("root"), &json!("root"))
    );
    assert!(file["mtime"].as_f64().unwrap() > 1e9);
    assert_eq!(entries["link"]["target"], "/no/where");
    let folder_entry = &entries["folder"];
    assert_eq!(
        (&folder_entry["owner"], &folder_entry["group"]),
        (&json!("54321"), &json!("54322"))
    );
    // A file, a link and a pipe list themselves.
    for (name, kind) in [("fi\"le", "file"), ("link", "symlink"), ("fifo", "fifo")] {
        let (done, entries) = list(&central, &json!({"path": at(name)}));
        assert_eq!(done["entries"], 1);
        assert_eq!(entries[name]["type"], kind);
    }
    let (_, entries) = list(&central, &json!({"path": "/"}));
    assert_eq!(entries["proc"]["type"], "directory");
    let (_, entries) = list(&central, &json!({"path": "/dev/null"}));
    assert_eq!(entries["null"]["type"], "device");
    let (code, _) = error(central.run("file.list", &json!({"path": at("none")})));
    assert_eq!(code, "not-found");
    for request in [
        json!({"path": "/", "limit": 0}),
        json!({"path": "/", "limit": 100_001}),
        json!({"path": "."}),
    ] {
        assert_eq!(error(central.run("file.list", &request)).0, "invalid");
    }
}

#[test]
fn fifty_thousand_files_are_listed() {
    let central = Central::new();
    let agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    for n in 0..50_000 {
        fs::File::create(folder.path().join(format!("file-{n}"))).unwrap();
    }
    let before = agent.resident();
    let (done, entries) = list(&central, &json!({"path": folder.path(), "limit": 100_000}));
    assert_eq!(
        (&done["entries"], &done["more"]),
        (&json!(50_000), &json!(false))
    );
    assert_eq!(entries.len(), 50_000);
    assert!(agent.resident() < before + (4 << 20));
    let (done, entries) = list(&central, &json!({"path": folder.path()}));
    assert_eq!(
        (&done["entries"], &done["more"]),
        (&json!(10_000), &json!(true))
    );
    assert_eq!(entries.len(), 10_000);
}

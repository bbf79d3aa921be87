//! `directory.put`.

use crate::central::{Central, data, error, merge, noise};
use crate::support::agent::Agent;
use crate::support::eventually;
use crate::support::place::{Namespace, Place, possible};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

fn file(central: &Central, path: &str, bytes: &[u8]) -> Value {
    let mut entry = central.have(bytes.to_vec());
    entry["path"] = path.into();
    entry
}

fn folder(path: &str) -> Value {
    json!({"path": path, "type": "directory"})
}

fn link(path: &str, target: &str) -> Value {
    json!({"path": path, "type": "symlink", "target": target})
}

fn with(mut entry: Value, more: Value) -> Value {
    merge(&mut entry, more);
    entry
}

/// All that is below a folder: links with their targets, files with their content.
fn tree(folder: &Path) -> Vec<String> {
    fn add(tree: &mut Vec<String>, root: &Path, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let kind = entry.file_type().unwrap();
            if kind.is_symlink() {
                tree.push(format!(
                    "{name} -> {}",
                    fs::read_link(&path).unwrap().display()
                ));
            } else if kind.is_dir() {
                tree.push(format!("{name}/"));
                add(tree, root, &path);
            } else {
                let content = fs::read(&path).unwrap();
                tree.push(format!("{name}: {}", String::from_utf8_lossy(&content)));
            }
        }
    }
    let mut all = Vec::new();
    add(&mut all, folder, folder);
    all.sort();
    all
}

#[test]
fn a_folder_becomes_what_the_manifest_says() {
    let central = Central::new();
    let agent = central.agent();
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("web");
    let entries = json!([
        file(&central, "a/b/deep", b"deep"),
        with(
            file(&central, "script", b"#!"),
            json!({"mode": "0750", "owner": 1234, "mtime": 1e9})
        ),
        with(folder("a"), json!({"mode": "0700", "mtime": 1_000_000_001})),
        folder("empty"),
        link("a/link", "/etc/passwd"),
    ]);
    let put = |prune: bool| {
        data(central.run(
            "directory.put",
            &json!({"path": path, "entries": entries, "prune": prune}),
        ))
    };
    let done = put(false);
    let wanted = json!({"path": path, "files": 2, "changed": 5, "removed": 0, "bytes": 6});
    assert_eq!(done, wanted);
    let all = [
        "a/",
        "a/b/",
        "a/b/deep: deep",
        "a/link -> /etc/passwd",
        "empty/",
        "script: #!",
    ];
    assert_eq!(tree(&path), all);
    let script = fs::metadata(path.join("script")).unwrap();
    assert_eq!(
        (script.mode() & 0o7777, script.uid(), script.mtime()),
        (0o750, 1234, 1_000_000_000)
    );
    let a = fs::metadata(path.join("a")).unwrap();
    assert_eq!((a.mode() & 0o7777, a.mtime()), (0o700, 1_000_000_001));

    // Once more: nothing is fetched, nothing is others' than before.
    let given = central.given();
    let done = put(false);
    assert_eq!((&done["changed"], &done["bytes"]), (&json!(0), &json!(0)));
    assert_eq!(central.given(), given);
    // What is not in it stays, or goes.
    fs::write(path.join("a/b/other"), "x").unwrap();
    fs::create_dir_all(path.join("more/and/more")).unwrap();
    fs::write(path.join("more/and/more/x"), "x").unwrap();
    put(false);
    assert_eq!(tree(&path).len(), all.len() + 5);
    assert_eq!(put(true)["removed"], 5);
    assert_eq!(tree(&path), all);
    assert_eq!(
        fs::read_dir(agent.state().join("transfers"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_large_manifest_is_fetched() {
    let central = Central::new();
    let _agent = central.agent();
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("many");
    let shared = central.have(b"the same".to_vec());
    let entries: Vec<_> = (0..8_000)
        .map(|n| {
            with(
                shared.clone(),
                json!({"path": format!("{}/{n}", n % 50), "mode": "0640"}),
            )
        })
        .collect();
    let manifest = serde_json::to_vec(&entries).unwrap();
    assert!(manifest.len() > 1 << 20, "more than a message");
    let request = json!({"path": path, "manifest": central.have(manifest)});
    let token = central.ask("directory.put", &request);
    let end = eventually("8000 files are put", || central.end_now(&token));
    assert_eq!(data(end)["files"], 8_000);
    assert_eq!(tree(&path).len(), 8_050);
}

#[test]
fn what_is_wrong_is_found_before_anything_is_written() {
    let central = Central::new();
    let agent = central.agent_with("[files]\nmanifest_entries = 50\n");
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("web");
    let good = file(&central, "good", b"good");
    let bad_manifest = central.have(b"{not json".to_vec());
    let huge = with(central.have(b"[]".to_vec()), json!({"size": 60_000}));
    for (more, code, said) in [
        (json!({"entries": [good, good]}), "invalid", "stands twice"),
        (
            json!({"entries": [good, file(&central, "good/x", b"")]}),
            "invalid",
            "below \"good\"",
        ),
        (
            json!({"entries": [good, link("l", "/"), folder("l/x")]}),
            "invalid",
            "below \"l\"",
        ),
        (json!({"entries": [good, folder("../x")]}), "invalid", ".."),
        (
            json!({"entries": [good, folder("/x")]}),
            "invalid",
            "empty part",
        ),
        (
            json!({"entries": [good, link("x", "")]}),
            "invalid",
            "target",
        ),
        (
            json!({"entries": [good, with(folder("x"), json!({"mode": "abc"}))]}),
            "invalid",
            "octal",
        ),
        (
            json!({"entries": [good, with(folder("x"), json!({"owner": "no-such"}))]}),
            "not-found",
            "no user",
        ),
        (
            json!({"entries": [good, with(good.clone(), json!({"path": "b", "size": 1_u64 << 61}))]}),
            "no-space",
            "are free",
        ),
        (
            json!({"entries": vec![folder("x"); 51]}),
            "too-large",
            "files.manifest_entries",
        ),
        (
            json!({"manifest": bad_manifest}),
            "invalid",
            "manifest cannot be read",
        ),
        (
            json!({"manifest": huge}),
            "too-large",
            "files.manifest_entries",
        ),
        (
            json!({"manifest": {"size": 1, "ref": "none", "sha256": "0".repeat(64)}}),
            "not-found",
            "no such content",
        ),
        (json!({}), "invalid", "entries"),
        (
            json!({"entries": [], "manifest": {}}),
            "invalid",
            "not both",
        ),
        (json!({"entries": [], "path": "/"}), "invalid", "empty part"),
        (
            json!({"entries": [], "path": "/etc/passwd"}),
            "refused",
            "not a folder",
        ),
        (
            json!({"entries": [], "path": "/no/such/folder"}),
            "not-found",
            "/no/such",
        ),
    ] {
        let request = with(json!({"path": path}), more);
        let (was, text) = error(central.run("directory.put", &request));
        assert_eq!(was, code, "{text}");
        assert!(text.contains(said), "{said}: {text}");
        assert!(!path.exists(), "{said}");
    }
    drop(agent);
}

#[test]
fn no_link_is_followed_and_nothing_outside_is_touched() {
    let central = Central::new();
    let _agent = central.agent();
    let around = tempfile::tempdir().unwrap();
    let (path, outside) = (around.path().join("web"), around.path().join("outside"));
    fs::create_dir_all(outside.join("folder")).unwrap();
    fs::write(outside.join("folder/file"), "outside").unwrap();
    fs::create_dir(&path).unwrap();
    symlink("../outside/folder", path.join("way")).unwrap();
    symlink("../outside/folder/file", path.join("file")).unwrap();
    let before = tree(&path);
    let put = |entries: Value, prune: bool| {
        central.run(
            "directory.put",
            &json!({"path": path, "entries": entries, "prune": prune}),
        )
    };
    for entry in [
        file(&central, "way/x", b"new"),
        folder("way/x"),
        folder("way"),
        file(&central, "file", b"new"),
    ] {
        let (code, text) = error(put(json!([file(&central, "a", b"a"), entry]), false));
        assert_eq!(code, "refused");
        assert!(text.contains("a symbolic link"), "{text}");
        assert_eq!(tree(&path), before, "it was found first");
    }
    // With prune the links go, and not what they point to.
    let wanted = json!([
        file(&central, "way/x", b"new"),
        file(&central, "file", b"new")
    ]);
    data(put(wanted, true));
    assert_eq!(tree(&path), ["file: new", "way/", "way/x: new"]);
    // A folder makes place for a file and a link, and the other way round.
    symlink("../../outside", path.join("way/out")).unwrap();
    let wanted = json!([file(&central, "way", b"file"), folder("file")]);
    data(put(wanted, true));
    assert_eq!(tree(&path), ["file/", "way: file"]);
    symlink("../../outside", path.join("file/out")).unwrap();
    data(put(
        json!([link("file", "../outside"), link("way", "file")]),
        true,
    ));
    assert_eq!(tree(&path), ["file -> ../outside", "way -> file"]);
    data(put(
        json!([link("file", "elsewhere"), link("way", "file")]),
        true,
    ));
    assert_eq!(tree(&path), ["file -> elsewhere", "way -> file"]);
    symlink("../outside", path.join("another")).unwrap();
    data(put(json!([]), true));
    assert!(tree(&path).is_empty());
    assert_eq!(tree(&outside), ["folder/", "folder/file: outside"]);
    // The folder itself is none where it is a link.
    symlink("outside", around.path().join("link")).unwrap();
    let request = json!({"path": around.path().join("link"), "entries": [], "prune": true});
    assert_eq!(error(central.run("directory.put", &request)).0, "refused");
    assert_eq!(tree(&outside), ["folder/", "folder/file: outside"]);
}

#[test]
fn other_file_systems_stay_when_the_rest_is_pruned() {
    if !possible("--mount") {
        return;
    }
    let central = Central::new();
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("web");
    let outside = around.path().join("outside");
    fs::create_dir_all(path.join("deep/bound")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(path.join("deep/file"), "x").unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    let namespace = Namespace::with_disk(&path.join("disk"), 1 << 20);
    let (from, to) = (outside.display(), path.join("deep/bound"));
    namespace.run(&format!("mount --bind {from} {}", to.display()));
    namespace.run(&format!("touch {}/disk/precious", path.display()));
    // A file may be a mount as well.
    fs::write(path.join("name"), "x").unwrap();
    let from = outside.join("precious");
    let (from, to) = (from.display(), path.join("name"));
    namespace.run(&format!("mount --bind {from} {}", to.display()));
    let mut agent = Agent::new();
    central.configure(&mut agent, "");
    agent = agent.within(namespace.place());
    agent.start();
    agent.wait_for_link("connected");
    let request = json!({"path": path, "entries": [], "prune": true});
    assert_eq!(data(central.run("directory.put", &request))["removed"], 1);
    let there = namespace.place().path(&path);
    let left = [
        "deep/",
        "deep/bound/",
        "deep/bound/precious: x",
        "disk/",
        "disk/precious: ",
        "name: x",
    ];
    assert_eq!(tree(&there), left);
}

#[test]
fn a_cancelled_or_killed_put_leaves_whole_files_only() {
    let central = Central::new();
    let mut agent = central.agent();
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("web");
    let first = noise(200_000);
    let last = noise(900_001);
    let entries = json!([
        file(&central, "a/first", &first),
        file(&central, "b/last", &last)
    ]);
    let request = json!({"path": path, "entries": entries});
    // The last piece of the last one never comes.
    central.twist(|request, answer| (request.offset < 800_000).then_some(answer));
    let wait = || {
        eventually("some of the last is there", || {
            let left = fs::read_dir(path.join("b")).ok()?.flatten().next()?;
            (left.metadata().ok()?.len() > 700_000).then(|| left.path())
        })
    };
    let token = central.ask("directory.put", &request);
    wait();
    central.run("cancel", &json!({"job": token})).unwrap();
    assert_eq!(central.end(&token).unwrap()["status"], "cancelled");
    let whole = |name: &str, bytes: &[u8]| fs::read(path.join(name)).is_ok_and(|b| b == bytes);
    assert!(whole("a/first", &first));
    assert_eq!(fs::read_dir(path.join("b")).unwrap().count(), 0);

    let token = central.ask("directory.put", &request);
    let left = wait();
    agent.kill();
    agent.start();
    agent.wait_for_link("connected");
    assert_eq!(central.end(&token).unwrap()["status"], "interrupted");
    let there = left.metadata().unwrap().len();
    assert!(there > 0);
    central.straight();
    let given = central.given();
    let done = data(central.run("directory.put", &request));
    assert_eq!(
        (&done["changed"], &done["bytes"]),
        (&json!(1), &json!(900_001 - there))
    );
    assert_eq!(central.given() - given, 900_001 - there);
    assert!(whole("a/first", &first) && whole("b/last", &last));
    assert_eq!(tree(&path).len(), 4);
    assert_eq!(
        fs::read_dir(agent.state().join("transfers"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn folders_are_for_all_to_read_whatever_the_umask_is() {
    let central = Central::new();
    let mut agent = Agent::new();
    central.configure(&mut agent, "");
    agent = agent.within(Place::new(&["sh", "-c", "umask 077; exec \"$@\"", "sh"]));
    agent.start();
    agent.wait_for_link("connected");
    let around = tempfile::tempdir().unwrap();
    let web = around.path().join("web");
    let entries = json!([file(&central, "a/deep", b"x")]);
    data(central.run("directory.put", &json!({"path": web, "entries": entries})));
    let above = around.path().join("above");
    data(central.put(&above.join("b/x"), b"x", json!({"parents": true})));
    for path in [web.clone(), web.join("a"), above.clone(), above.join("b")] {
        let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o755, "{}", path.display());
    }
}

#[test]
fn a_link_of_another_owner_is_a_changed_one() {
    let central = Central::new();
    let _agent = central.agent();
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("web");
    let changed = |owner: u32| {
        let entry = with(link("link", "target"), json!({"owner": owner}));
        let request = json!({"path": path, "entries": [entry]});
        data(central.run("directory.put", &request))["changed"].clone()
    };
    assert_eq!([changed(0), changed(1234), changed(1234)], [1, 1, 0]);
    let link = fs::symlink_metadata(path.join("link")).unwrap();
    assert_eq!(link.uid(), 1234);
}

//! The scripts of an identifier: by the API, and by the command.
#![allow(missing_docs)]

mod common;

use common::*;
use poseidon::blobs::sha256;
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Output;

const BASE: &str = "/repositories/box";

async fn show(rig: &Rig) -> Value {
    rig.told("GET", BASE, b"", 200).await
}

async fn put(rig: &Rig, path: &str, content: &[u8]) -> Value {
    let path = format!("{BASE}/files/{path}");
    rig.told("PUT", &path, content, 200).await
}

fn files(repository: &Value) -> Vec<(&str, &str)> {
    let all = repository["files"].as_array().unwrap().iter();
    all.map(|f| (f["path"].as_str().unwrap(), f["mode"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn each_change_is_a_revision_and_none_is_lost() {
    let mut rig = rig().await;
    rig.register("box").await;
    let hash = poseidon::agents::hash(IDENTIFIER);
    let mut changes = rig
        .server
        .as_ref()
        .unwrap()
        .app()
        .events
        .subscribe_content();
    let empty = show(&rig).await;
    assert_eq!(
        (&empty["revision"], &empty["number"]),
        (&json!(null), &json!(0))
    );
    let first = put(&rig, "net/up.sh?comment=first", b"#!/bin/sh\necho up\n").await;
    assert_eq!(changes.try_recv().unwrap(), hash);
    assert_eq!(first["changed"], true);
    let first = &first["repository"];
    assert_eq!(
        (&first["number"], &first["parent"]),
        (&json!(1), &json!(null))
    );
    assert_eq!(files(first), [("net/up.sh", "0755")]);
    // The same again is no revision, and nobody is told.
    let same = put(&rig, "net/up.sh", b"#!/bin/sh\necho up\n").await;
    assert_eq!(
        (&same["changed"], &same["repository"]["number"]),
        (&json!(false), &json!(1))
    );
    assert!(changes.try_recv().is_err());
    put(&rig, "lib.lua", b"return 1\n").await;
    // A file that is replaced keeps its mode, and can get another.
    put(&rig, "lib.lua?mode=600", b"return 2\n").await;
    let fourth = put(&rig, "lib.lua", b"return 3\n").await;
    let all = [("lib.lua", "0600"), ("net/up.sh", "0755")];
    assert_eq!(files(&fourth["repository"]), all);
    let path = format!("{BASE}/files/lib.lua");
    let removed = rig
        .told("DELETE", &format!("{path}?comment=gone"), b"", 200)
        .await;
    let last = &removed["repository"];
    assert_eq!(files(last), [("net/up.sh", "0755")]);
    // The same files have the same id.
    assert_eq!(last["revision"], first["revision"]);
    rig.refused("DELETE", &path, b"", 404).await;

    rig.restart().await;
    let history = rig.told("GET", &format!("{BASE}/history"), b"", 200).await;
    let history = history["revisions"].as_array().unwrap();
    let of = |field: &str| history.iter().map(|r| r[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("number"), [5, 4, 3, 2, 1]);
    assert_eq!(of("comment"), ["gone", "", "", "", "first"]);
    assert_eq!(of("files"), [1, 2, 2, 2, 1]);
    assert_eq!(of("parent")[..4], of("revision")[1..]);
    for (revision, content) in [("3", "return 2\n"), ("2", "return 1\n")] {
        let (status, body) = rig
            .ask("GET", &format!("{path}?revision={revision}"), b"")
            .await;
        assert_eq!((status, body), (200, content.into()));
    }
    rig.refused("GET", &path, b"", 404).await;
    // By its id too.
    let id = history[1]["revision"].as_str().unwrap();
    let (_, body) = rig.ask("GET", &format!("{path}?revision={id}"), b"").await;
    assert_eq!(body, b"return 3\n");
    let revert = rig
        .told(
            "POST",
            &format!("{BASE}/revert"),
            json!({"revision": id}).to_string().as_bytes(),
            200,
        )
        .await;
    let now = &revert["repository"];
    assert_eq!((&now["number"], &now["revision"]), (&json!(6), &json!(id)));
    assert_eq!(files(now), all);
    assert_eq!(now["comment"], format!("back to {id}"));
    let (_, body) = rig.ask("GET", &path, b"").await;
    assert_eq!(body, b"return 3\n");
}

#[tokio::test]
async fn two_editors_do_not_overwrite_each_other() {
    let rig = rig().await;
    rig.register("box").await;
    let base = put(&rig, "a", b"0").await["repository"]["revision"].clone();
    let base = base.as_str().unwrap();
    let path = format!("/files/a?parent={base}");
    rig.told("PUT", &format!("{BASE}{path}"), b"one", 200).await;
    let (code, message) = rig
        .refused("PUT", &format!("{BASE}{path}"), b"two", 409)
        .await;
    let current = show(&rig).await["revision"].clone();
    assert_eq!(code, "conflict");
    assert!(message.contains(current.as_str().unwrap()), "{message}");
    rig.refused("DELETE", &format!("{BASE}{path}"), b"", 409)
        .await;
    for (call, body) in [
        ("", json!({"files": [], "parent": base})),
        ("", json!({"files": [], "parent": ""})),
        ("/revert", json!({"revision": "1", "parent": base})),
    ] {
        let body = body.to_string();
        rig.refused("POST", &format!("{BASE}{call}"), body.as_bytes(), 409)
            .await;
    }
    let (_, body) = rig.ask("GET", &format!("{BASE}/files/a"), b"").await;
    assert_eq!(body, b"one");
    // At once: each on top of the same, and one of them only.
    let parent = current.as_str().unwrap().to_owned();
    let many = (0..20).map(|n| {
        let (rig, parent) = (&rig, &parent);
        async move {
            let path = format!("{BASE}/files/b{n}?parent={parent}");
            rig.ask("PUT", &path, b"x").await.0
        }
    });
    let mut told = futures_util::future::join_all(many).await;
    told.sort_unstable();
    assert_eq!((told[0], &told[1..]), (200, &[409; 19][..]));
    // Without a parent all of them.
    let many = (0..20).map(|n| {
        let rig = &rig;
        async move { put(rig, &format!("c{n}"), b"x").await }
    });
    futures_util::future::join_all(many).await;
    assert_eq!(files(&show(&rig).await).len(), 22);
}

#[tokio::test]
async fn a_whole_revision_is_made_of_blobs() {
    let rig = rig().await;
    rig.register("box").await;
    let (sh, data) = (&b"#!/bin/sh\n"[..], &b"data"[..]);
    for blob in [sh, data] {
        rig.told("PUT", &format!("/blobs/{}", sha256(blob)), blob, 201)
            .await;
    }
    let whole = async |files: Value, status: u16| {
        let body = json!({"files": files, "comment": "all", "parent": ""}).to_string();
        rig.told("POST", BASE, body.as_bytes(), status).await
    };
    let file = |path: &str, blob: &[u8]| json!({"path": path, "sha256": sha256(blob)});
    for (files, status, says) in [
        (json!([file("a", b"none")]), 404, "there is no blob"),
        (json!([{"path": "a", "sha256": "x"}]), 400, "64 hex digits"),
        (
            json!([{"path": "a", "sha256": sha256(sh), "size": 9}]),
            400,
            "not what `size` says",
        ),
        (
            json!([{"path": "a", "sha256": sha256(sh), "mode": "4755"}]),
            400,
            "no mode",
        ),
        (json!([file("../a", sh)]), 400, "begins with a dot"),
        (json!([file("a\nb", sh)]), 400, "letters, digits"),
        (json!([file("a\0b", sh)]), 400, "letters, digits"),
        (json!([file("/a", sh)]), 400, "relative"),
        (json!([file("a", sh), file("a", data)]), 400, "twice"),
        (
            json!([file("a", sh), file("a/b", data)]),
            400,
            "a is a file",
        ),
        (json!(vec![file("a", sh); 2001]), 400, "at most 2000 files"),
        (
            json!([{"path": "a", "sha256": sha256(sh), "owner": "root"}]),
            400,
            "owner",
        ),
    ] {
        let answer = whole(files, status).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
    }
    assert_eq!(show(&rig).await["revision"], json!(null));
    let many: Vec<_> = (0..100_000).map(|n| file(&format!("f{n}"), sh)).collect();
    assert_eq!(whole(json!(many), 413).await["error"]["code"], "too-large");
    let made = whole(json!([file("run", sh), file("x/data", data)]), 200).await;
    let made = &made["repository"];
    assert_eq!(files(made), [("run", "0755"), ("x/data", "0644")]);
    assert_eq!(
        (&made["comment"], &made["bytes"]),
        (&json!("all"), &json!(14))
    );
    // As many as it may have, and their manifest as a device gets it in one message.
    let long = |n: usize| format!("{:-<249}{n:04}", "l/");
    let many: Vec<_> = (0..2000).map(|n| file(&long(n), sh)).collect();
    let body = json!({"files": many}).to_string();
    rig.told("POST", BASE, body.as_bytes(), 200).await;
    let hash = poseidon::agents::hash(IDENTIFIER);
    let app = rig.server.as_ref().unwrap().app();
    let manifest = app.repositories.current(&hash).await.unwrap().unwrap();
    let id = app.repositories.current_id(&hash).await.unwrap();
    assert_eq!(Some(&manifest.revision), id.as_ref());
    let message = triton::message::Message::with("scripts.sync", &manifest);
    assert!(message.encode().unwrap().len() < triton::message::DEFAULT_LIMIT);
    let last = serde_json::to_value(&manifest).unwrap()["files"][1999].clone();
    assert_eq!(
        last,
        json!({"path": long(1999), "sha256": sha256(sh), "size": 10, "mode": "0755"})
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let rig = rig_with(|settings| settings.blob_store_bytes = 2_000_000).await;
    rig.register("box").await;
    for (method, path, status) in [
        ("GET", "/repositories/nobody", 404),
        ("GET", "/repositories/nobody/history", 404),
        ("PUT", "/repositories/nobody/files/a", 404),
        ("GET", "/repositories/box%2Fi1", 404),
        ("GET", "/repositories/box/revisions/1", 404),
        ("GET", "/repositories/box/revisions/0123456789abcdef", 404),
        ("GET", "/repositories/box/revisions/x", 400),
        ("GET", "/repositories/box/revisions/-1", 400),
        (
            "GET",
            "/repositories/box/revisions/99999999999999999999",
            400,
        ),
        ("GET", "/repositories/box/files/a", 404),
        ("GET", "/repositories/box/files/a?revision=1", 404),
        ("GET", "/repositories/box/files/a?what=1", 400),
        ("PUT", "/repositories/box/files/..%2Fa", 400),
        ("PUT", "/repositories/box/files/a/../b", 400),
        ("PUT", "/repositories/box/files/a%00", 400),
        ("PUT", "/repositories/box/files/a%0Ab", 400),
        ("PUT", "/repositories/box/files/%ff", 400),
        ("PUT", "/repositories/box/files/.git", 400),
        ("PUT", "/repositories/box/files/a//b", 400),
        ("PUT", "/repositories/box/files/a?mode=9", 400),
        ("PUT", "/repositories/box/files/a?comment=a%0Ab", 400),
        ("POST", "/repositories/box/revert", 400),
        ("POST", "/repositories/box", 400),
    ] {
        rig.refused(method, path, b"", status).await;
    }
    let long = format!("{BASE}/files/a?comment={}", "x".repeat(501));
    rig.refused("PUT", &long, b"", 400).await;
    let script = vec![b'x'; 1 << 20];
    put(&rig, "large", &script).await;
    let path = format!("{BASE}/files/larger");
    let (code, _) = rig
        .refused("PUT", &path, &[&script[..], b"x"].concat(), 413)
        .await;
    assert_eq!(code, "too-large");
    let (code, _) = rig.refused("PUT", &path, &vec![b'y'; 1_000_000], 507).await;
    assert_eq!(code, "full");
    // A blob may be larger than a script.
    let blob = vec![0; (1 << 20) + 1];
    let rig = common::rig().await;
    rig.register("box").await;
    rig.told("PUT", &format!("/blobs/{}", sha256(&blob)), &blob, 201)
        .await;
    let body = json!({"files": [{"path": "a", "sha256": sha256(&blob)}]}).to_string();
    let (_, message) = rig.refused("POST", BASE, body.as_bytes(), 400).await;
    assert!(message.contains("1048577 bytes"), "{message}");
}

#[tokio::test]
async fn only_so_many_revisions_are_kept_and_the_current_one_always() {
    let rig = rig().await;
    rig.register("box").await;
    put(&rig, "stays", b"as it is").await;
    for n in 0..204 {
        put(&rig, "counter", n.to_string().as_bytes()).await;
    }
    let history = rig.told("GET", &format!("{BASE}/history"), b"", 200).await;
    let history = history["revisions"].as_array().unwrap();
    assert_eq!(history.len(), 200);
    assert_eq!(
        (&history[0]["number"], &history[199]["number"]),
        (&json!(205), &json!(6))
    );
    rig.refused("GET", &format!("{BASE}/revisions/5"), b"", 404)
        .await;
    let oldest = rig
        .told("GET", &format!("{BASE}/revisions/6"), b"", 200)
        .await;
    assert_eq!(files(&oldest), [("counter", "0644"), ("stays", "0644")]);
    assert_eq!(oldest["files"][0]["sha256"], sha256(b"4"));
    // Their blobs are no longer wanted, those of the others are.
    let app = rig.server.as_ref().unwrap().app();
    let asked: Vec<_> = ["3", "4", "203", "as it is"]
        .map(|c| sha256(c.as_bytes()))
        .to_vec();
    let all = asked.clone();
    let wanted = app
        .db
        .call(move |store| store.wanted_blobs(&all))
        .await
        .unwrap();
    assert_eq!(wanted, asked[1..].iter().cloned().collect());
}

#[tokio::test]
async fn watchers_are_told_and_a_forgotten_identifier_has_nothing() {
    let rig = rig().await;
    rig.register("box").await;
    let mut lines = rig.client.lines("/events").await.unwrap();
    let mut next = async || -> Value {
        serde_json::from_slice(&within(lines.next()).await.unwrap().unwrap()).unwrap()
    };
    assert_eq!(next().await["type"], "fleet");
    let made = put(&rig, "a", b"x").await;
    let revision = &made["repository"]["revision"];
    assert_eq!(
        next().await,
        json!({"type": "scripts", "name": "box", "revision": revision})
    );
    let list: Value = rig.client.get("/identifiers").await.unwrap();
    let id = list["identifiers"][0]["id"].as_str().unwrap();
    rig.told("DELETE", &format!("/identifiers/{id}"), b"", 200)
        .await;
    rig.refused("GET", BASE, b"", 404).await;
    rig.register("box").await;
    assert_eq!(show(&rig).await["revision"], json!(null));
}

async fn command(rig: &Rig, arguments: &[&str]) -> Output {
    let mut command = poseidon(&[&["scripts"], arguments].concat());
    command.env("POSEIDON_DATA", rig.dir.path().join("data"));
    within(command.output()).await.unwrap()
}

async fn says(rig: &Rig, arguments: &[&str]) -> String {
    let output = command(rig, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn fails(rig: &Rig, arguments: &[&str]) -> String {
    let output = command(rig, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn write(path: &Path, content: &str, mode: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn the_command_puts_lists_shows_compares_and_reverts() {
    let rig = rig().await;
    rig.register("box").await;
    let here = rig.dir.path().join("here");
    let folder = here.to_str().unwrap();
    write(&here.join("up.sh"), "#!/bin/sh\necho up\n", 0o600);
    write(&here.join("tool"), "\x7fELF", 0o700);
    write(&here.join("net/dns.conf"), "one\ntwo\n", 0o600);
    write(&here.join(".git/config"), "secret\n", 0o600);
    assert!(
        says(&rig, &["ls", "box"])
            .await
            .contains("Nothing was put yet")
    );
    assert!(
        says(&rig, &["history", "box"])
            .await
            .contains("Nothing was put yet")
    );
    assert_eq!(says(&rig, &["diff", "box"]).await, "");
    let output = command(&rig, &["put", "box", folder, "--comment", "first"]).await;
    assert!(
        String::from_utf8_lossy(&output.stderr).contains(".git is left out"),
        "{output:?}"
    );
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.starts_with("box is now at revision ") && said.ends_with("(1), 3 files\n"),
        "{said}"
    );
    let list: Value = serde_json::from_str(&says(&rig, &["ls", "box", "--json"]).await).unwrap();
    assert_eq!(
        files(&list),
        [
            ("net/dns.conf", "0644"),
            ("tool", "0755"),
            ("up.sh", "0755")
        ]
    );
    assert!(
        says(&rig, &["put", "box", folder])
            .await
            .contains("stays at revision")
    );

    // One file, under another name; others stay.
    write(&here.join("new"), "one\n2\n", 0o600);
    let new = here.join("new");
    let new = new.to_str().unwrap();
    says(
        &rig,
        &["put", "box", new, "--as", "net/dns.conf", "--mode", "0600"],
    )
    .await;
    assert_eq!(
        says(&rig, &["show", "box", "net/dns.conf"]).await,
        "one\n2\n"
    );
    assert_eq!(
        says(&rig, &["show", "box", "net/dns.conf", "--revision", "1"]).await,
        "one\ntwo\n"
    );
    let change = "mode of net/dns.conf: 0644 -> 0600\n--- a/net/dns.conf\n+++ b/net/dns.conf\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n";
    assert_eq!(says(&rig, &["diff", "box"]).await, change);
    assert_eq!(says(&rig, &["diff", "box", "1"]).await, change);
    assert_eq!(says(&rig, &["diff", "box", "1", "1"]).await, "");
    let back = says(&rig, &["diff", "box", "2", "1"]).await;
    assert!(back.contains("-2\n+two\n"), "{back}");
    let table = says(&rig, &["ls", "box"]).await;
    assert!(table.contains("net/dns.conf  0600  6 B"), "{table}");

    // All of it, and no more.
    std::fs::remove_file(here.join("tool")).unwrap();
    std::fs::remove_dir_all(here.join(".git")).unwrap();
    assert!(
        says(&rig, &["put", "box", folder, "--prune"])
            .await
            .contains("(3), 3 files")
    );
    let gone = says(&rig, &["diff", "box"]).await;
    assert!(
        gone.contains("new file new, mode 0644") && gone.contains("deleted file tool"),
        "{gone}"
    );
    says(&rig, &["rm", "box", "new", "up.sh", "--comment", "fewer"]).await;
    assert!(
        says(&rig, &["revert", "box", "1"])
            .await
            .contains("(5), 3 files")
    );
    let history = says(&rig, &["history", "box"]).await;
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(lines.len(), 6);
    assert!(
        lines[1].starts_with("5 ") && lines[1].ends_with("back to 1"),
        "{history}"
    );
    assert!(
        lines[2].ends_with("fewer") && lines[5].ends_with("first"),
        "{history}"
    );
    let json: Value =
        serde_json::from_str(&says(&rig, &["history", "box", "--json"]).await).unwrap();
    assert_eq!(json["revisions"][0]["number"], 5);
}

#[tokio::test]
async fn the_command_changes_several_devices_at_once() {
    let rig = rig().await;
    rig.register("box").await;
    let two = json!({"identifier": "another-identifier-of-a-good-length", "name": "two"});
    rig.client
        .post::<Value>("/identifiers", &two)
        .await
        .unwrap();
    let here = rig.dir.path().join("here");
    write(&here.join("a.sh"), "#!/bin/sh\necho a\n", 0o600);
    write(&here.join("b.sh"), "#!/bin/sh\necho b\n", 0o600);
    let path = |name: &str| here.join(name).to_str().unwrap().to_owned();
    let (a, b) = (path("a.sh"), path("b.sh"));
    let lines = |said: String| -> Vec<String> {
        let each = said
            .lines()
            .map(|line| line.split(' ').next().unwrap_or(""));
        each.map(str::to_owned).collect()
    };
    let said = says(&rig, &["put", "box", "two", "--", &a]).await;
    assert!(
        said.contains("box is now at") && said.contains("\ntwo is now at"),
        "{said}"
    );
    // The device that has not come yet is no selector's.
    let _agent = rig.agent("i1").await;
    assert_eq!(
        lines(says(&rig, &["put", "--on", "*", &a, &b]).await),
        ["box"]
    );
    assert_eq!(
        lines(says(&rig, &["put", "--on", "*", "two", "--", &b]).await),
        ["box", "two"]
    );
    assert_eq!(
        says(&rig, &["show", "two", "b.sh"]).await,
        "#!/bin/sh\necho b\n"
    );
    // Who fails is told, and the others have it.
    let output = command(&rig, &["rm", "nobody", "two", "box", "--", "b.sh"]).await;
    assert_eq!(output.status.code(), Some(1));
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert_eq!(lines(out), ["box", "two"]);
    assert!(
        err.contains("nobody: no identifier") && err.contains("failed for 1 of 3"),
        "{err}"
    );
    assert!(
        fails(&rig, &["rm", "box", "two", "--", "b.sh"])
            .await
            .contains("failed for 2 of 2")
    );
    let said = says(&rig, &["revert", "--on", "os=Linux", "two", "2"]).await;
    assert_eq!(lines(said), ["box", "two"]);
    assert!(says(&rig, &["ls", "two"]).await.contains("b.sh"));
    for arguments in [
        &["put", &a][..],
        &["put", "--on", "*"],
        &["rm", "box"],
        &["rm", "--", "b.sh"],
        &["revert", "2"],
    ] {
        assert!(
            fails(&rig, arguments).await.contains("is expected"),
            "{arguments:?}"
        );
    }
    let none = fails(&rig, &["put", "--on", "nobody", &a]).await;
    assert!(none.contains("means no device"), "{none}");
}

#[tokio::test]
async fn the_command_says_what_is_wrong() {
    let rig = rig().await;
    rig.register("box").await;
    let here = rig.dir.path().join("here");
    write(&here.join("good"), "good", 0o600);
    write(&here.join("bad name"), "bad", 0o600);
    let good = here.join("good");
    let good = good.to_str().unwrap();
    for (arguments, says) in [
        (
            vec!["put", "box", here.to_str().unwrap()],
            "no path of a script",
        ),
        (vec!["put", "box", "/dev/null"], "is no plain file"),
        (vec!["put", "box", "/nowhere"], "cannot read /nowhere"),
        (
            vec!["put", "nobody", good],
            "no identifier is registered as nobody",
        ),
        (vec!["put", "box", good, good], "would both be good"),
        (
            vec!["put", "box", good, "--as", "../x"],
            "no part of it begins with a dot",
        ),
        (
            vec!["put", "box", good, "--parent", "0123456789abcdef"],
            "no parent",
        ),
        (vec!["show", "box", "none"], "there is no script none"),
        (vec!["rm", "box", "none"], "there is no script none"),
        (vec!["revert", "box", "7"], "no such revision"),
        (vec!["diff", "box", "7"], "there is no revision 7"),
        (
            vec!["ls", "box", "--revision", "../x"],
            "a revision is its id",
        ),
    ] {
        let said = fails(&rig, &arguments).await;
        assert!(
            said.contains(says) && !said.contains("panicked"),
            "{arguments:?}: {said}"
        );
    }
    std::fs::remove_file(here.join("bad name")).unwrap();
    symlink("/etc/shadow", here.join("link")).unwrap();
    let said = fails(&rig, &["put", "box", here.to_str().unwrap()]).await;
    assert!(said.contains("link is a symbolic link"), "{said}");
    std::fs::remove_file(here.join("link")).unwrap();
    write(&here.join("large"), &"x".repeat((1 << 20) + 1), 0o600);
    let said = fails(&rig, &["put", "box", here.to_str().unwrap()]).await;
    assert!(said.contains("large has more than 1048576 bytes"), "{said}");
    assert_eq!(show(&rig).await["revision"], json!(null));
}

#[tokio::test]
async fn what_is_brought_already_is_not_brought_again_after_a_restart() {
    let mut rig = rig().await;
    rig.register("box").await;
    let made = put(&rig, "a", b"one").await;
    let revision = made["repository"]["revision"].clone();
    let hello = || {
        let mut more = journal("j1");
        more["capabilities"] = json!(["command", "scripts.sync"]);
        more
    };
    let come = async |rig: &Rig| {
        let mut agent = Agent::connect(rig.url(), Some(IDENTIFIER), "/triton")
            .await
            .unwrap();
        agent.hello_with("i1", hello()).await;
        agent
    };
    let mut agent = come(&rig).await;
    let job = agent.expect("scripts.sync").await;
    agent.record(&job.id, "accepted", 1, json!({})).await;
    rig.state(&job.id, "accepted").await;
    rig.restart().await;
    // It still fetches the files, so its hello does not tell of the revision.
    let mut agent = come(&rig).await;
    agent.nothing_came().await;
    let result = json!({"status": "succeeded", "data": {"revision": revision}});
    agent.record(&job.id, "result", 2, result).await;
    rig.ended(&job.id).await;
    let command = rig.run("box", json!({"argv": ["true"]})).await;
    loop {
        let next = agent.next().await.unwrap();
        assert_ne!(next.kind, "scripts.sync");
        if next.id == command {
            break;
        }
    }
    // A new one comes still.
    put(&rig, "a", b"two").await;
    agent.expect("scripts.sync").await;
}

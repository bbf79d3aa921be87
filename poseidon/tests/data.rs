//! Data that identifiers are given: by the API, and by the command.
#![allow(missing_docs)]

mod common;

use common::*;
use poseidon::blobs::sha256;
use poseidon::store::named::Content;
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::AsyncWriteExt as _;
use triton::message::{Message, payload};

const SECRET: &str = "hunter2-is-no-password";

fn hash() -> String {
    poseidon::agents::hash(IDENTIFIER)
}

async fn content(rig: &Rig, key: &str) -> Option<Content> {
    let app = rig.server.as_ref().unwrap().app();
    app.data.get(&hash(), key).await.unwrap()
}

#[tokio::test]
async fn values_are_given_shown_and_taken_away() {
    let mut rig = rig().await;
    rig.register("box").await;
    rig.told("PUT", "/data/box/site/color", b"blue", 200).await;
    let entry = rig
        .told("PUT", "/data/box/site/color", b"\xff\0green", 200)
        .await;
    assert_eq!(
        (&entry["size"], &entry["secret"]),
        (&json!(7), &json!(false))
    );
    // On the border, and beyond: a blob.
    let (small, large) = (vec![1; 1 << 20], vec![2; (1 << 20) + 1]);
    rig.told("PUT", "/data/box/small", &small, 200).await;
    rig.told("PUT", "/data/box/large", &large, 200).await;
    rig.told("PUT", "/data/box/empty", b"", 200).await;
    rig.restart().await;
    assert_eq!(
        content(&rig, "small").await,
        Some(Content::Value(small.clone()))
    );
    assert_eq!(
        content(&rig, "large").await,
        Some(Content::Blob(sha256(&large)))
    );
    assert_eq!(content(&rig, "none").await, None);
    for (key, value) in [
        ("site/color", &b"\xff\0green"[..]),
        ("small", &small),
        ("large", &large),
        ("empty", b""),
    ] {
        let (status, body) = rig.ask("GET", &format!("/data/box/{key}"), b"").await;
        assert!(status == 200 && body == value, "{key}");
    }
    let list = rig.told("GET", "/data/box", b"", 200).await;
    let keys: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["key"].clone())
        .collect();
    assert_eq!(keys, ["empty", "large", "site/color", "small"]);
    assert_eq!(list["data"][3]["sha256"], sha256(&small));
    rig.told("DELETE", "/data/box/large", b"", 200).await;
    rig.refused("DELETE", "/data/box/large", b"", 404).await;
    rig.refused("GET", "/data/box/large", b"", 404).await;
    assert_eq!(content(&rig, "large").await, None);
}

#[tokio::test]
async fn a_secret_is_never_shown() {
    let rig = rig().await;
    rig.register("box").await;
    let mut lines = rig.client.lines("/events").await.unwrap();
    let path = "/data/box/token";
    let mut answers = vec![
        rig.ask("PUT", &format!("{path}?secret=true"), SECRET.as_bytes())
            .await,
    ];
    let (code, _) = rig.refused("GET", path, b"", 403).await;
    assert_eq!(code, "refused");
    // It does not become readable by being put without the word.
    let (code, _) = rig.refused("PUT", path, b"other", 409).await;
    assert_eq!(code, "conflict");
    for path in [
        "/data/box",
        "/repositories/box",
        "/identifiers",
        "/agents",
        path,
    ] {
        answers.push(rig.ask("GET", path, b"").await);
    }
    answers.push(rig.ask("HEAD", path, b"").await);
    let hex = sha256(SECRET.as_bytes());
    for (_, body) in &answers {
        let body = String::from_utf8_lossy(body);
        assert!(!body.contains("hunter2") && !body.contains(&hex), "{body}");
    }
    let first = String::from_utf8(within(lines.next()).await.unwrap().unwrap()).unwrap();
    assert!(!first.contains("hunter2"));
    assert!(!rig.dir.path().join("data/blobs").join(&hex[..2]).exists());
    let list = rig.told("GET", "/data/box", b"", 200).await;
    assert_eq!(list["data"][0]["sha256"], json!(null));
    assert_eq!(list["data"][0]["secret"], true);
    // The device gets it.
    let given = content(&rig, "token").await;
    assert_eq!(given, Some(Content::Value(SECRET.into())));
    assert!(!format!("{given:?}").contains("hunter2"));
    rig.told("PUT", &format!("{path}?secret=true"), b"new", 200)
        .await;
    rig.told("DELETE", path, b"", 200).await;
    rig.told("PUT", path, b"plain now", 200).await;
    let large = vec![0; (1 << 20) + 1];
    let (code, _) = rig
        .refused("PUT", "/data/box/x?secret=true", &large, 413)
        .await;
    assert_eq!(code, "too-large");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let rig = rig_with(|settings| settings.blob_bytes = 2 << 20).await;
    rig.register("box").await;
    for (path, status) in [
        ("/data/nobody/a", 404),
        ("/data/box/attributes", 400),
        ("/data/box/attribute/site", 400),
        ("/data/box/sha256:00", 400),
        ("/data/box/a%20b", 400),
        ("/data/box/a%00", 400),
        ("/data/box/a%0A", 400),
        ("/data/box/%ff", 400),
        ("/data/box/..%2Fx", 400),
        ("/data/box/a//b", 400),
        ("/data/box/a?secret=1", 400),
        ("/data/box/a?secre=true", 400),
    ] {
        rig.refused("PUT", path, b"x", status).await;
    }
    rig.refused("PUT", &format!("/data/box/{}", "k".repeat(129)), b"x", 400)
        .await;
    rig.refused("GET", "/data/nobody", b"", 404).await;
    let (code, _) = rig
        .refused("PUT", "/data/box/a", &vec![0; (2 << 20) + 1], 413)
        .await;
    assert_eq!(code, "too-large");
    for n in 0..16 {
        rig.told("PUT", &format!("/data/box/v{n}"), &vec![n; 1 << 20], 200)
            .await;
    }
    let (code, message) = rig.refused("PUT", "/data/box/more", b"x", 507).await;
    assert_eq!(code, "full");
    assert!(message.contains("16 MiB"), "{message}");
    // What is there can be replaced, and what is no value has other room.
    rig.told("PUT", "/data/box/v3", b"less", 200).await;
    for n in 0..240 {
        rig.told("PUT", &format!("/data/box/n{n}"), b"x", 200).await;
    }
    rig.refused("PUT", "/data/box/more", b"x", 507).await;
    rig.told("PUT", "/data/box/n1", b"y", 200).await;
}

#[tokio::test]
async fn the_command_gives_lists_shows_and_takes() {
    let rig = rig().await;
    rig.register("box").await;
    let file = rig.dir.path().join("key");
    std::fs::write(&file, SECRET).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = poseidon(&[&["data"], arguments].concat());
        command.env("POSEIDON_DATA", rig.dir.path().join("data"));
        command
    };
    let run = async |arguments: &[&str]| {
        let output = within(command(arguments).output()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let file = file.to_str().unwrap();
    let (code, said, _) = run(&["put", "box", "ssh/key", file, "--secret"]).await;
    assert_eq!(
        (code, said.as_str()),
        (0, "gave ssh/key (22 B, secret) to box\n")
    );
    run(&["put", "box", "color", "--value", "blue"]).await;
    assert_eq!(run(&["show", "box", "color"]).await.1, "blue");
    let mut child = command(&["put", "box", "piped", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"through a pipe").await.unwrap();
    drop(stdin);
    assert!(within(child.wait()).await.unwrap().success());
    assert_eq!(run(&["show", "box", "piped"]).await.1, "through a pipe");
    let large = rig.dir.path().join("large");
    std::fs::write(&large, vec![b'x'; 3 << 20]).unwrap();
    run(&["put", "box", "large", large.to_str().unwrap()]).await;
    assert_eq!(run(&["show", "box", "large"]).await.1.len(), 3 << 20);

    let (_, list, _) = run(&["ls", "box"]).await;
    let row = list
        .lines()
        .find(|line| line.starts_with("ssh/key"))
        .unwrap();
    assert!(
        row.contains("22 B") && row.contains("secret") && !list.contains("hunter2"),
        "{list}"
    );
    let (_, json, _) = run(&["ls", "box", "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["data"][0]["key"], "color");
    for (arguments, says) in [
        (&["show", "box", "ssh/key"][..], "is a secret"),
        (&["show", "box", "none"], "was not given none"),
        (
            &["put", "box", "ssh/key", "--value", "x"],
            "there is a secret",
        ),
        (
            &["put", "box", "attributes", "--value", "x"],
            "attributes of the identifier",
        ),
        (&["put", "box", "x", "/nowhere"], "cannot read /nowhere"),
        (&["put", "box", "x", "/dev/null"], "no plain file"),
        (&["rm", "box", "none"], "was not given none"),
        (&["ls", "nobody"], "no identifier is registered as nobody"),
    ] {
        let (code, out, said) = run(arguments).await;
        assert!(
            code == 1 && out.is_empty() && said.contains(says),
            "{arguments:?}: {said}"
        );
    }
    // In the list of processes everyone would read it.
    assert_eq!(
        run(&["put", "box", "x", "--value", "y", "--secret"])
            .await
            .0,
        2
    );
    run(&["rm", "box", "color"]).await;
    assert_eq!(run(&["show", "box", "color"]).await.0, 1);

    // Several devices.
    let two = json!({"identifier": "another-identifier-of-a-good-length", "name": "two"});
    rig.client
        .post::<Value>("/identifiers", &two)
        .await
        .unwrap();
    let (code, out, _) = run(&["put", "two", "box", "shared", "--value", "x"]).await;
    let gave = "gave shared (1 B) to box\ngave shared (1 B) to two\n";
    assert_eq!((code, out.as_str()), (0, gave));
    let mut child = command(&["put", "box", "two", "piped", "-", "--secret"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"for both").await.unwrap();
    drop(stdin);
    assert!(within(child.wait()).await.unwrap().success());
    assert!(run(&["ls", "two"]).await.1.contains("secret"));
    let _agent = rig.agent("i1").await;
    let (code, out, _) = run(&["put", "--on", "os=Linux", "two", "key", file]).await;
    assert_eq!((code, out.lines().count()), (0, 2));
    run(&["rm", "two", "shared"]).await;
    let (code, out, said) = run(&["rm", "two", "--on", "*", "shared"]).await;
    assert_eq!((code, out.as_str()), (1, "took shared from box\n"));
    assert!(
        said.contains("two: two was not given shared") && said.contains("failed for 1 of 2"),
        "{said}"
    );
    let (code, _, said) = run(&["put", "box", "key"]).await;
    assert!(code == 1 && said.contains("which device?"), "{said}");
}

#[tokio::test]
async fn a_selector_that_means_one_instance_gives_nothing_to_the_others() {
    let rig = rig().await;
    rig.register("box").await;
    let folder = rig.dir.path().join("data");
    let run = async |arguments: &[&str]| {
        let mut command = poseidon(&[&["data"], arguments].concat());
        let output = command.env("POSEIDON_DATA", &folder).output();
        let output = within(output).await.unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let mut agents = Vec::new();
    for (instance, site) in [("i1", "lyon"), ("i2", "turin"), ("i3", "turin")] {
        let mut agent = Agent::connect(rig.url(), Some(IDENTIFIER), "/triton")
            .await
            .unwrap();
        let labels = json!({"labels": {"site": site}});
        agent.hello_with(instance, labels).await;
        agents.push(agent);
    }
    let lyon = "label.site=lyon";
    for arguments in [
        &["put", "--on", lyon, "key", "--value", "x"][..],
        &["rm", "--on", lyon, "key"],
    ] {
        let (code, out, said) = run(arguments).await;
        assert_eq!((code, out.as_str()), (1, ""), "{said}");
        assert!(
            said.contains("does not mean box/i2, box/i3.") && said.trim_end().ends_with(": box"),
            "{said}"
        );
    }
    let list = rig.told("GET", "/data/box", b"", 200).await;
    assert_eq!(list["data"], json!([]));
    // All of them, by the selectors or by name.
    for arguments in [
        &["--on", lyon, "--on", "label.site=turin"][..],
        &["box", "--on", lyon],
    ] {
        let arguments = [&["put"], arguments, &["key", "--value", "x"]].concat();
        let (code, out, said) = run(&arguments).await;
        assert_eq!(
            (code, out.as_str()),
            (0, "gave key (1 B) to box\n"),
            "{said}"
        );
    }
    // A plain Triton that has gone may never come back under its number.
    let plain = Agent::connect(rig.url(), Some(IDENTIFIER), "/triton").await;
    let mut plain = plain.unwrap();
    plain
        .send(&Message::with(payload::HEARTBEAT, &json!({})))
        .await;
    eventually("it is known", async || {
        let agents: Value = rig.client.get("/agents?brief=true").await.unwrap();
        (agents["agents"].as_array()?.len() == 4).then_some(())
    })
    .await;
    let (code, _, said) = run(&["put", "--on", "os=Linux", "key", "--value", "x"]).await;
    assert!(
        code == 1 && said.contains("does not mean box/plain."),
        "{said}"
    );
    drop(plain);
    eventually("it is down", async || {
        let agents: Value = rig.client.get("/agents?on=state%3Ddown").await.unwrap();
        (agents["agents"].as_array()?.len() == 1).then_some(())
    })
    .await;
    let (code, _, said) = run(&["put", "--on", "os=Linux", "key", "--value", "x"]).await;
    assert_eq!(code, 0, "{said}");
}

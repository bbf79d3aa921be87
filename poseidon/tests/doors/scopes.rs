//! A token that is for some devices does not see the others.

use crate::common::*;
use crate::{ask, bearer, token};
use poseidon::cli::client::{Client, Lines};
use serde_json::{Value, json};

async fn device(rig: &Rig, name: &str) -> Agent {
    let identifier = format!("an-identifier-of-its-own-for-{name}");
    let body = json!({"identifier": identifier, "name": name});
    rig.client
        .post::<Value>("/identifiers", &body)
        .await
        .unwrap();
    let mut agent = Agent::connect(rig.url(), Some(&identifier), "/triton")
        .await
        .unwrap();
    agent.hello_with("i1", journal("j")).await;
    agent
}

async fn job(rig: &Rig, name: &str, agent: &mut Agent) -> String {
    let id = rig.run(name, json!({"argv": ["true"]})).await;
    let command = agent.expect("command").await;
    agent.succeed(&command, 0).await;
    rig.ended(&id).await;
    id
}

async fn line(lines: &mut Lines) -> Value {
    let line = within(lines.next()).await.unwrap().expect("a line");
    serde_json::from_slice(&line).unwrap()
}

#[tokio::test]
async fn what_is_outside_is_as_if_it_were_not_there() {
    let rig = rig().await;
    let (mut gate, mut pi) = (device(&rig, "gate-1").await, device(&rig, "pi-1").await);
    let (inside, outside) = (
        job(&rig, "gate-1", &mut gate).await,
        job(&rig, "pi-1", &mut pi).await,
    );
    gate.values(1..=1).await;
    pi.values(1..=1).await;
    gate.acked(1).await;
    pi.acked(1).await;
    let both = json!({"on": ["*"], "command": {"argv": ["true"]}});
    let batch: Value = rig.client.post("/batches", &both).await.unwrap();
    let batch = batch["batch"]["id"].as_str().unwrap();
    for agent in [&mut gate, &mut pi] {
        let command = agent.expect("command").await;
        agent.succeed(&command, 0).await;
    }
    let key = token(&rig, "gates", "operator", &["gate-*"]).await;
    let op = Client::new(rig.url(), key.clone(), None).unwrap();

    let get = async |path: &str| op.get::<Value>(path).await.unwrap();
    let agents = get("/agents").await;
    assert_eq!(agents["agents"].as_array().unwrap().len(), 1);
    assert_eq!(agents["agents"][0]["name"], "gate-1");
    assert_eq!(
        get("/agents?on=*&brief=true").await["agents"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(get("/agents?on=pi-*").await["agents"], json!([]));
    assert_eq!(get(&format!("/jobs/{inside}")).await["agent"], "gate-1");
    let jobs = get("/jobs").await;
    assert!(
        jobs["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .all(|job| job["agent"] == "gate-1"),
        "{jobs}"
    );
    assert!(!jobs["jobs"].as_array().unwrap().is_empty());
    let history = get("/history").await;
    let records = history["records"].as_array().unwrap();
    assert!(
        records.len() == 1 && records[0]["agent"] == "gate-1",
        "{history}"
    );
    assert_eq!(get("/batches").await["batches"], json!([]));

    // The same answer as for what never was.
    let command = |name: &str| json!({"agents": [name], "command": {"argv": ["true"]}}).to_string();
    for (method, path, body) in [
        ("GET", "/agents/NAME", String::new()),
        ("GET", "/agents/NAME/file?path=/etc/passwd", String::new()),
        ("GET", "/agents?agent=NAME", String::new()),
        ("GET", "/history?agent=NAME", String::new()),
        ("GET", "/jobs?agent=NAME", String::new()),
        ("POST", "/jobs", command("NAME")),
        ("POST", "/batches", command("NAME")),
        ("GET", "/repositories/NAME", String::new()),
        ("GET", "/repositories/NAME/history", String::new()),
        (
            "PUT",
            "/repositories/NAME/files/a.sh",
            "#!/bin/sh".to_owned(),
        ),
        ("GET", "/data/NAME", String::new()),
        ("PUT", "/data/NAME/key?secret=true", "x".to_owned()),
        ("DELETE", "/data/NAME/key", String::new()),
    ] {
        let mut told = Vec::new();
        for name in ["pi-1", "no-1"] {
            let (path, body) = (path.replace("NAME", name), body.replace("NAME", name));
            let answer = ask(rig.url(), method, &path, &[&bearer(&key)], &body).await;
            told.push((answer.status, answer.body.replace(name, "NAME")));
        }
        assert_eq!(told[0], told[1], "{method} {path}");
        assert_eq!(told[0].0, 404, "{method} {path}: {}", told[0].1);
    }
    for (method, path, id) in [
        ("GET", "/jobs/ID", &*outside),
        ("GET", "/jobs/ID/output", &outside),
        ("POST", "/jobs/ID/cancel", &outside),
        ("GET", "/batches/ID", batch),
        ("GET", "/batches/ID/output", batch),
        ("POST", "/batches/ID/cancel", batch),
    ] {
        let mut told = Vec::new();
        for id in [id, "00000000000000000000000000000000"] {
            let answer = ask(
                rig.url(),
                method,
                &path.replace("ID", id),
                &[&bearer(&key)],
                "",
            )
            .await;
            told.push((answer.status, answer.body.replace(id, "ID")));
        }
        assert_eq!(told[0], told[1], "{method} {path}");
        assert_eq!(told[0].0, 404, "{method} {path}: {}", told[0].1);
    }

    // All devices are all that it sees.
    let own: Value = op.post("/batches", &both).await.unwrap();
    assert_eq!(own["batch"]["total"], 1, "{own}");
    let command = gate.expect("command").await;
    gate.succeed(&command, 0).await;
    pi.nothing_came().await;
    assert_eq!(
        get("/batches").await["batches"].as_array().unwrap().len(),
        1
    );
    op.put::<Value>("/data/gate-1/key", "x").await.unwrap();

    // Where events go, and how many there are, is about all devices; a reader starts behind the newest.
    let state = get("/cef/state").await;
    let fields: Vec<_> = state.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["newest", "time"], "{state}");
    let all: Value = rig.client.get("/cef/state").await.unwrap();
    assert!(all["limitBytes"].is_u64(), "{all}");
    let output = poseidon(&["events", "--forwarding", "--url", rig.url()])
        .env("POSEIDON_TOKEN", &key)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("for some devices only"), "{said}");
}

#[tokio::test]
async fn a_live_stream_tells_of_the_devices_of_its_token_and_ends_with_it() {
    let rig = rig().await;
    let (_gate, pi) = (device(&rig, "gate-1").await, device(&rig, "pi-1").await);
    // One that waits is for those who may let it in.
    let knock = Agent::connect(
        rig.url(),
        Some("an-identifier-that-nobody-knows"),
        "/triton",
    )
    .await;
    assert_eq!(knock.err().unwrap().0, 403);
    let key = token(&rig, "gates", "viewer", &["gate-*"]).await;
    let op = Client::new(rig.url(), key, None).unwrap();
    let mut lines = op.lines("/events").await.unwrap();
    let fleet = line(&mut lines).await;
    assert_eq!(fleet["agents"].as_array().unwrap().len(), 1, "{fleet}");
    assert_eq!(fleet["pending"], json!([]));
    drop(pi);
    rig.is_down("pi-1").await;
    let admin = std::fs::read_to_string(rig.dir.path().join("data/admin-token")).unwrap();
    let admin = admin.trim().to_owned();
    let entries = json!({"entries": [{"name": "n", "cron": "@daily", "command": ["true"]}]});
    for name in ["pi-1", "gate-1"] {
        let told = ask(
            rig.url(),
            "PUT",
            &format!("/schedules/{name}"),
            &[&bearer(&admin)],
            &entries.to_string(),
        )
        .await;
        assert_eq!(told.status, 200, "{}", told.body);
    }
    let set = line(&mut lines).await;
    assert_eq!(
        (&set["type"], &set["name"]),
        (&json!("schedule"), &json!("gate-1")),
        "{set}"
    );
    // It comes into the view, and leaves it, by another name.
    let rename = async |name: &str| {
        let identifier = "an-identifier-of-its-own-for-pi-1";
        let body = json!({"identifier": identifier, "name": name});
        rig.client
            .post::<Value>("/identifiers", &body)
            .await
            .unwrap();
    };
    rename("gate-2").await;
    let came = line(&mut lines).await;
    assert_eq!(
        (&came["type"], &came["agent"]["name"]),
        (&json!("agent"), &json!("gate-2"))
    );
    rename("pi-1").await;
    let went = line(&mut lines).await;
    assert_eq!(went["type"], "agent-removed", "{went}");

    rig.client.delete("/tokens/gates").await.unwrap();
    let e = loop {
        match within(lines.next()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends as if that were all"),
            Err(e) => break e,
        }
    };
    assert!(e.contains("broke"), "{e}");
    assert!(op.get::<Value>("/agents").await.is_err());
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let rig = rig().await;
    let body = json!({"name": "short", "role": "viewer", "expiresSeconds": 1});
    let answer: Value = rig.client.post("/tokens", &body).await.unwrap();
    let key = answer["token"].as_str().unwrap().to_owned();
    let viewer = Client::new(rig.url(), key, None).unwrap();
    let mut lines = viewer.lines("/events").await.unwrap();
    line(&mut lines).await;
    assert!(within(lines.next()).await.is_err());
}

#[tokio::test]
async fn a_token_of_another_ones_job_tells_nothing_of_it() {
    let rig = rig().await;
    let (mut gate, mut pi) = (device(&rig, "gate-1").await, device(&rig, "pi-1").await);
    let own = "0".repeat(32);
    let asks = |field: &str, name: &str| {
        json!({"agents": [name], "command": {"argv": ["true"]}, field: own}).to_string()
    };
    let key = token(&rig, "gates", "operator", &["gate-*"]).await;
    let post = async |path: &str, body: &str| {
        let answer = ask(rig.url(), "POST", path, &[&bearer(&key)], body).await;
        (answer.status, answer.body)
    };
    for (path, field) in [("/jobs", "token"), ("/batches", "id")] {
        // As for a name that never was.
        let unknown = post(path, &asks(field, "pi-1")).await;
        let body: Value = serde_json::from_str(&asks(field, "pi-1")).unwrap();
        rig.client.post::<Value>(path, &body).await.unwrap();
        let command = pi.expect("command").await;
        pi.output(&command, 0, b"secret").await;
        pi.succeed(&command, 6).await;
        rig.ended(&command.id).await;
        assert_eq!(unknown.0, 404);
        let (status, told) = post(path, &asks(field, "gate-1")).await;
        assert_eq!(status, 409, "{told}");
        assert!(!told.contains("pi-1") && !told.contains("secret"), "{told}");
        let (status, told) = post(path, &asks(field, "pi-1")).await;
        assert!(matches!(status, 404 | 409), "{told}");
        assert!(
            !told.contains("instance") && !told.contains("secret"),
            "{told}"
        );
    }
    gate.nothing_came().await;
    pi.nothing_came().await;
}

//! What an operator says of an identifier, and how its devices hear of it.

use crate::common::*;
use serde_json::{Value, json};
use triton::message::{Message, payload};

/// The ID of the identifier of [`Rig::register`].
async fn id(rig: &Rig) -> String {
    let known: Value = rig.client.get("/identifiers").await.unwrap();
    known["identifiers"][0]["id"].as_str().unwrap().to_owned()
}

async fn set(rig: &Rig, body: Value) -> Value {
    let path = format!("/identifiers/{}", id(rig).await);
    let answer: Value = rig.client.patch(&path, &body).await.unwrap();
    answer["identifier"].clone()
}

/// Connects, and says hello in a conversation of its own name.
async fn greet(rig: &Rig, instance: &str, more: Value) -> (Agent, payload::Welcome) {
    let mut agent = Agent::connect(rig.url(), Some(IDENTIFIER), "/")
        .await
        .unwrap();
    let mut hello = json!({"instance": instance});
    let more = more.as_object().unwrap().clone();
    hello.as_object_mut().unwrap().extend(more);
    let hello = Message::within(&format!("of-{instance}"), payload::HELLO, &hello);
    agent.send(&hello).await;
    let welcome = agent.expect(payload::WELCOME).await.read().unwrap();
    (agent, welcome)
}

#[tokio::test]
async fn what_changes_is_told_at_once_to_all_that_are_up() {
    let rig = rig().await;
    rig.register("box").await;
    let (one, first) = greet(&rig, "i1", journal("j1")).await;
    let (two, _) = greet(&rig, "i2", json!({})).await;
    assert_eq!(first.acked, Some(0));
    let mut agents = [("of-i1", one), ("of-i2", two)];
    let changed = set(
        &rig,
        json!({"name": "shed", "attributes": {"floor": "3", "site": null, "none": null}, "heartbeatSeconds": 60}),
    )
    .await;
    assert_eq!(
        (&changed["name"], &changed["attributes"], &changed["state"]),
        (&json!("shed"), &json!({"floor": "3"}), &json!("registered"))
    );
    assert_eq!(changed["heartbeatSeconds"], 60);
    for (conversation, agent) in &mut agents {
        let message = agent.expect(payload::WELCOME).await;
        assert_eq!(message.conversation_id, *conversation);
        let told: payload::Welcome = message.read().unwrap();
        assert_eq!(told.name.as_deref(), Some("shed"));
        assert_eq!(told.attributes.len(), 1);
        assert_eq!(told.attributes["floor"], "3");
        assert_eq!(told.heartbeat_seconds, Some(60));
        // By it the agent would send again what is on its way.
        assert_eq!(told.acked, None);
        assert!(told.nested_deltas);
        // Once, and not again for what stays.
        agent.nothing_came().await;
    }
    assert_eq!(rig.show("shed%2Fi1").await["heartbeatSeconds"], 60);
    set(&rig, json!({"name": "shed", "attributes": {"floor": "3"}})).await;
    for (_, agent) in &mut agents {
        agent.nothing_came().await;
    }
    // As the command `register` changes it too.
    let again = json!({"identifier": IDENTIFIER, "attributes": {"site": "cellar"}});
    rig.client
        .post::<Value>("/identifiers", &again)
        .await
        .unwrap();
    for (_, agent) in &mut agents {
        let told: payload::Welcome = agent.expect(payload::WELCOME).await.read().unwrap();
        assert_eq!(told.attributes["site"], "cellar");
        assert_eq!(told.heartbeat_seconds, Some(60), "it stays");
    }
    set(&rig, json!({"heartbeatSeconds": null})).await;
    for (_, agent) in &mut agents {
        let told: payload::Welcome = agent.expect(payload::WELCOME).await.read().unwrap();
        assert_eq!(told.heartbeat_seconds, Some(15));
    }
}

#[tokio::test]
async fn what_is_set_outlasts_a_restart_and_is_checked() {
    let mut rig = rig().await;
    rig.register("box").await;
    let path = format!("/identifiers/{}", &id(&rig).await[..5]);
    for body in [
        json!({"heartbeatSeconds": 0}),
        json!({"heartbeatSeconds": 86_401}),
        json!({"heartbeatSeconds": "60"}),
        json!({"name": "a/b"}),
        json!({"attributes": {"": "x"}}),
        json!({"attribute": {"floor": "3"}}),
    ] {
        let body = body.to_string();
        rig.refused("PATCH", &path, body.as_bytes(), 400).await;
    }
    rig.refused("PATCH", "/identifiers/0000000000000000", b"{}", 404)
        .await;
    let body = json!({"heartbeatSeconds": 86_400}).to_string();
    rig.told("PATCH", &path, body.as_bytes(), 200).await;
    rig.restart().await;
    let (_agent, welcome) = greet(&rig, "i1", json!({"heartbeatSeconds": 5})).await;
    assert_eq!(welcome.heartbeat_seconds, Some(86_400));
    assert_eq!(welcome.attributes["site"], "attic");
    // One that is refused stays so.
    let refuse = format!("/pending/{IDENTIFIER}/refuse");
    rig.client.post::<Value>(&refuse, &json!({})).await.unwrap();
    let changed = set(&rig, json!({"name": "thief"})).await;
    assert_eq!(changed["state"], "refused");
    let acts: Value = rig.client.get("/audit?act=identifiers.set").await.unwrap();
    let told = acts["acts"][0]["detail"].as_str().unwrap();
    assert!(told.contains("as thief"), "{told}");
    assert!(!acts.to_string().contains("attic"), "{acts}");
}

#[tokio::test]
async fn who_waits_is_not_let_in_by_it() {
    let rig = rig().await;
    assert!(
        Agent::connect(rig.url(), Some(IDENTIFIER), "/")
            .await
            .is_err()
    );
    let pending: Value = rig.client.get("/pending").await.unwrap();
    let id = pending["pending"][0]["id"].as_str().unwrap();
    let path = format!("/identifiers/{id}");
    let (code, why) = rig
        .refused("PATCH", &path, b"{\"name\":\"box\"}", 409)
        .await;
    assert_eq!(code, "conflict");
    assert!(why.contains("poseidon approve"), "{why}");
    let body = json!({"identifier": id, "name": "box"}).to_string();
    let (_, why) = rig
        .refused("POST", "/identifiers", body.as_bytes(), 409)
        .await;
    assert!(why.contains(&format!("poseidon approve {id}")), "{why}");
    let approve = format!("/pending/{id}/approve");
    let body = json!({"name": "box", "attributes": {"floor": "3"}});
    rig.client.post::<Value>(&approve, &body).await.unwrap();
    let (_agent, welcome) = greet(&rig, "i1", json!({})).await;
    assert_eq!(welcome.attributes["floor"], "3");
}

#[tokio::test]
async fn what_is_shown_to_everybody_is_no_identifier() {
    let rig = rig().await;
    rig.register("box").await;
    let id = id(&rig).await;
    let whole = poseidon::agents::hash(IDENTIFIER);
    for text in [&*id, &id[..4], &id.to_uppercase(), &whole, "box"] {
        let body = json!({"identifier": text, "name": "attic", "attributes": {"floor": "3"}});
        let body = body.to_string();
        let (code, why) = rig
            .refused("POST", "/identifiers", body.as_bytes(), 409)
            .await;
        assert_eq!(code, "conflict");
        assert!(why.contains(&format!("poseidon set {id}")), "{why}");
    }
    let known: Value = rig.client.get("/identifiers").await.unwrap();
    assert_eq!(known["identifiers"].as_array().unwrap().len(), 1);
    // Fewer digits are nobody's ID, and what is so short is warned of.
    let body = json!({"identifier": &id[..3]});
    let answer: Value = rig.client.post("/identifiers", &body).await.unwrap();
    let warning = answer["warning"].as_str().unwrap();
    assert!(warning.contains("guesses"), "{warning}");
    let body = json!({"identifier": IDENTIFIER, "name": "attic"});
    let answer: Value = rig.client.post("/identifiers", &body).await.unwrap();
    assert_eq!(answer["warning"], Value::Null);
}

#[tokio::test]
async fn each_connection_has_the_interval_that_its_device_asks_for() {
    let rig = rig_with(|settings| settings.heartbeat_seconds = 1).await;
    rig.register("box").await;
    // Neither is read, so neither answers a ping.
    let (_slow, slow) = greet(&rig, "slow", json!({"heartbeatSeconds": 3600})).await;
    let (_fast, fast) = greet(&rig, "fast", json!({})).await;
    assert_eq!(slow.heartbeat_seconds, Some(3600));
    assert_eq!(fast.heartbeat_seconds, Some(1));
    rig.is_down("box%2Ffast").await;
    let shown = rig.show("box%2Fslow").await;
    assert_eq!(
        (&shown["state"], &shown["heartbeatSeconds"]),
        (&json!("up"), &json!(3600))
    );
    // What cannot be is as if it were not asked.
    for asked in [
        json!(0),
        json!(86_401),
        json!(-1),
        json!(1e300),
        Value::Null,
    ] {
        let (_agent, welcome) = greet(&rig, "odd", json!({"heartbeatSeconds": asked})).await;
        assert_eq!(welcome.heartbeat_seconds, Some(1), "{asked}");
    }
    let (_probe, welcome) = greet(
        &rig,
        "probe",
        json!({"probe": true, "heartbeatSeconds": 30}),
    )
    .await;
    assert_eq!(welcome.heartbeat_seconds, Some(30));
    // The operator's word counts, and the silence is judged by it from now on.
    set(&rig, json!({"heartbeatSeconds": 1})).await;
    rig.is_down("box%2Fslow").await;
    assert_eq!(rig.show("box%2Fslow").await["heartbeatSeconds"], 1);
}

/// Every device reads its welcome, whatever its limit is: one that cannot would be out of reach.
#[tokio::test]
async fn attributes_have_a_bound_together() {
    let rig = rig().await;
    let _ = Agent::connect(rig.url(), Some(IDENTIFIER), "/").await;
    let many: serde_json::Map<String, Value> = (0..60)
        .map(|n| (format!("k{n}"), "&".repeat(4096).into()))
        .collect();
    let refused = async |method: &str, path: &str, mut body: Value| {
        body["attributes"] = json!(many);
        let body = body.to_string();
        let (code, why) = rig.refused(method, path, body.as_bytes(), 400).await;
        assert_eq!(code, "invalid");
        for part in ["more than 8192", "poseidon data put"] {
            assert!(why.contains(part), "{part}: {why}");
        }
    };
    let approve = format!("/pending/{IDENTIFIER}/approve");
    refused("POST", &approve, json!({})).await;
    refused("POST", "/identifiers", json!({"identifier": IDENTIFIER})).await;
    rig.register("box").await;
    let path = format!("/identifiers/{}", id(&rig).await);
    refused("PATCH", &path, json!({})).await;
    // Bit by bit it is no more.
    let some = json!({"attributes": {"a": "&".repeat(800), "b": "<".repeat(900)}});
    set(&rig, some).await;
    refused("PATCH", &path, json!({})).await;
    let (_agent, welcome) = greet(&rig, "i1", json!({})).await;
    assert_eq!(welcome.attributes.len(), 3);
}

#[tokio::test]
async fn what_was_stored_without_that_bound_is_not_said_and_is_logged() {
    let mut rig = daemon().await;
    rig.register("box").await;
    let many: serde_json::Map<String, Value> = (0..64)
        .map(|n| (format!("k{n}"), "&".repeat(4096).into()))
        .collect();
    let db = rusqlite::Connection::open(rig.dir.path().join("data/poseidon.db")).unwrap();
    let text = json!(many).to_string();
    db.execute("UPDATE identifiers SET attributes = ?1", [text])
        .unwrap();
    drop(db);
    rig.kill().await;
    let (mut agent, welcome) = greet(&rig, "i1", json!({})).await;
    assert_eq!(welcome.name.as_deref(), Some("box"));
    assert!(welcome.attributes.is_empty());
    let log = rig.log();
    for part in [
        "ERROR",
        "without its attributes",
        "'poseidon set box --unset KEY'",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    set(&rig, json!({"heartbeatSeconds": 60})).await;
    let told: payload::Welcome = agent.expect(payload::WELCOME).await.read().unwrap();
    assert_eq!(told.heartbeat_seconds, Some(60));
    assert_eq!(rig.log().matches("without its attributes").count(), 1);
    let most: serde_json::Map<String, Value> =
        (1..64).map(|n| (format!("k{n}"), Value::Null)).collect();
    let one = json!({"k0": "short"});
    let mut less = json!(most);
    less["k0"] = one["k0"].clone();
    set(&rig, json!({"attributes": less})).await;
    let told: payload::Welcome = agent.expect(payload::WELCOME).await.read().unwrap();
    assert_eq!(json!(told.attributes), one);
}

/// A device that is slow to take its jobs is none that does not read.
#[tokio::test]
async fn who_has_no_room_for_a_further_welcome_gets_it_later() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = greet(&rig, "i1", journal("j1")).await;
    // More than its socket and the queue hold.
    let job =
        json!({"agents": ["box"], "command": {"argv": ["cat"], "stdin": "A".repeat(400_000)}});
    let mut sent = 0;
    loop {
        let answer: Value = rig.client.post("/jobs", &job).await.unwrap();
        if answer["jobs"][0]["error"]["code"] == "busy" {
            break;
        }
        sent += 1;
        assert!(sent < 200, "it has room for everything");
    }
    for name in ["shed", "hut", "loft"] {
        set(&rig, json!({"name": name})).await;
    }
    let mut names = Vec::new();
    let mut jobs = 0;
    while jobs < sent || names.is_empty() {
        let message = agent.next().await.expect("a connection");
        match message.kind.as_str() {
            payload::WELCOME => names.push(message.read::<payload::Welcome>().unwrap().name),
            payload::COMMAND => jobs += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(names, [Some("loft".to_owned())]);
    agent.nothing_came().await;
}

//! A request whose answer was lost is made again under the caller's own token, and runs once.

use crate::common::*;
use serde_json::{Value, json};
use triton::message::payload;

const TOKEN: &str = "00112233445566778899aabbccddeeff";

fn body(more: &Value) -> Vec<u8> {
    let mut body =
        json!({"agents": ["box"], "command": {"argv": ["true"], "nice": 3}, "token": TOKEN});
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    body.to_string().into_bytes()
}

async fn post(rig: &Rig, more: &Value) -> (u16, Value) {
    let (status, answer) = rig.ask("POST", "/jobs", &body(more)).await;
    (status, serde_json::from_slice(&answer).unwrap())
}

#[tokio::test]
async fn the_same_request_is_answered_with_the_job_as_it_stands() {
    let mut rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j").await;
    let (status, first) = post(&rig, &json!({})).await;
    assert_eq!((status, &first["jobs"][0]["id"]), (201, &json!(TOKEN)));
    let command = agent.expect(payload::COMMAND).await;
    assert_eq!(command.id, TOKEN);
    // In which order its fields stand does not matter.
    let turned = json!({"command": {"nice": 3, "argv": ["true"]}, "agents": ["box/i1"]});
    assert_eq!(post(&rig, &turned).await, (200, first));
    agent.succeed(&command, 0).await;
    rig.ended(TOKEN).await;
    let (status, ended) = post(&rig, &json!({})).await;
    assert_eq!((status, &ended["jobs"][0]), (200, &rig.job(TOKEN).await));
    assert_eq!(ended["jobs"][0]["state"], "ended");
    agent.nothing_came().await;
    // Over a restart, and while the device is down.
    drop(agent);
    rig.restart().await;
    assert_eq!(post(&rig, &json!({})).await, (200, ended));
    let (mut agent, _) = rig.journaled("i1", "j").await;
    agent.nothing_came().await;
    let list: Value = rig.client.get("/jobs").await.unwrap();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_token_stands_for_one_request() {
    let rig = rig().await;
    rig.register("box").await;
    let other = json!({"identifier": "another-identifier-of-some-length", "name": "other"});
    rig.client
        .post::<Value>("/identifiers", &other)
        .await
        .unwrap();
    let mut other = Agent::connect(
        rig.url(),
        Some("another-identifier-of-some-length"),
        "/triton",
    )
    .await
    .unwrap();
    other.hello("i2").await;
    let mut agent = rig.agent("i1").await;
    assert_eq!(post(&rig, &json!({})).await.0, 201);
    agent.expect(payload::COMMAND).await;
    for more in [
        json!({"agents": ["other"]}),
        json!({"agents": ["box/i2"]}),
        json!({"agents": ["nobody"]}),
        json!({"command": {"argv": ["false"], "nice": 3}}),
        json!({"command": {"argv": ["true"]}}),
        json!({"queue": true}),
        json!({"command": null, "type": "script", "payload": {"argv": ["true"], "nice": 3}}),
    ] {
        let (code, message) = rig.refused("POST", "/jobs", &body(&more), 409).await;
        assert_eq!(code, "conflict", "{more}");
        assert!(message.contains("another request"), "{message}");
        assert!(!message.contains("box"), "{message}");
    }
    for (more, part) in [
        (json!({"token": "../../etc/passwd"}), "32 lower-case hex"),
        (json!({"token": TOKEN.to_uppercase()}), "32 lower-case hex"),
        (json!({"agents": ["box", "other"]}), "name one agent"),
        (json!({"agents": []}), "name one agent"),
    ] {
        let (code, message) = rig.refused("POST", "/jobs", &body(&more), 400).await;
        assert!(code == "invalid" && message.contains(part), "{message}");
    }
    let nobody = json!({"agents": ["nobody"], "token": "f".repeat(32)});
    rig.refused("POST", "/jobs", &body(&nobody), 404).await;
    // A name that several share is no one job's.
    let _twin = rig.agent("i3").await;
    let new = json!({"token": "f".repeat(32)});
    let (_, message) = rig.refused("POST", "/jobs", &body(&new), 400).await;
    assert!(message.contains("2 instances"), "{message}");
    assert_eq!(post(&rig, &json!({})).await.0, 200);
    agent.nothing_came().await;
    other.nothing_came().await;
}

#[tokio::test]
async fn of_many_at_the_same_moment_one_makes_the_job() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let all = (0..16).map(|n| {
        // Every fourth wants something else.
        let argv = if n % 4 == 3 { "false" } else { "true" };
        let more = json!({"command": {"argv": [argv]}});
        let rig = &rig;
        async move { (argv, post(rig, &more).await) }
    });
    let all = futures_util::future::join_all(all).await;
    let command = agent.expect(payload::COMMAND).await;
    agent.nothing_came().await;
    let ran = command.read::<payload::Command>().unwrap().argv.unwrap();
    let made = all.iter().filter(|(_, (status, _))| *status == 201);
    assert_eq!(made.count(), 1);
    for (argv, (status, answer)) in &all {
        if *argv == ran[0] {
            assert!(matches!(status, 200 | 201), "{answer}");
            assert_eq!(answer["jobs"][0]["id"], TOKEN);
        } else {
            assert_eq!(*status, 409, "{answer}");
        }
    }
}

#[tokio::test]
async fn a_killed_server_knows_the_token_before_it_knows_the_device_again() {
    let mut rig = daemon().await;
    rig.register("box").await;
    let (agent, _) = rig.journaled("i1", "j").await;
    assert_eq!(post(&rig, &json!({})).await.0, 201);
    rig.kill().await;
    drop(agent);
    let (status, answer) = post(&rig, &json!({})).await;
    assert_eq!((status, &answer["jobs"][0]["state"]), (200, &json!("sent")));
    let (mut agent, _) = rig.journaled("i1", "j").await;
    assert_eq!(agent.expect(payload::COMMAND).await.id, TOKEN);
    assert_eq!(post(&rig, &json!({})).await.0, 200);
    agent.nothing_came().await;
}

//! A request whose answer was lost is made again under the caller's own token, and runs once.

use crate::common::*;
use serde_json::{Value, json};
use sha2::Digest as _;
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
        json!({"agents": ["box", "other"]}),
        json!({"agents": []}),
    ] {
        let (code, message) = rig.refused("POST", "/jobs", &body(&more), 409).await;
        assert_eq!(code, "conflict", "{more}");
        assert!(message.contains("another request"), "{message}");
        assert!(!message.contains("box"), "{message}");
    }
    for (more, part) in [
        (json!({"token": "../../etc/passwd"}), "32 lower-case hex"),
        (json!({"token": TOKEN.to_uppercase()}), "32 lower-case hex"),
        (
            json!({"agents": [], "token": "f".repeat(32)}),
            "no agent is named",
        ),
    ] {
        let (code, message) = rig.refused("POST", "/jobs", &body(&more), 400).await;
        assert!(code == "invalid" && message.contains(part), "{message}");
    }
    let nobody = json!({"agents": ["nobody"], "token": "f".repeat(32)});
    rig.refused("POST", "/jobs", &body(&nobody), 404).await;
    // What was asked of one stays that of one.
    let mut twin = rig.agent("i3").await;
    let (status, again) = post(&rig, &json!({})).await;
    assert_eq!((status, again["jobs"].as_array().unwrap().len()), (200, 1));
    agent.nothing_came().await;
    twin.nothing_came().await;
    other.nothing_came().await;
}

#[tokio::test]
async fn a_token_stands_for_the_jobs_of_all_instances() {
    let mut rig = daemon().await;
    rig.register("box").await;
    let (mut a, _) = rig.journaled("i1", "j1").await;
    let (mut b, _) = rig.journaled("i2", "j2").await;
    let (status, first) = post(&rig, &json!({})).await;
    assert_eq!(status, 201);
    let id = |n: usize| first["jobs"][n]["id"].as_str().unwrap();
    // As docs/api.md tells it.
    let own = sha2::Sha256::digest(format!("{TOKEN}/1"));
    let further = triton::message::id::hex(&own)[..32].to_owned();
    assert_eq!([id(0), id(1)], [TOKEN, &further]);
    for agent in [&mut a, &mut b] {
        let command = agent.expect(payload::COMMAND).await;
        assert!([TOKEN, &further].contains(&&*command.id));
    }
    // One who comes later is not meant.
    let (mut c, _) = rig.journaled("i3", "j3").await;
    let both = json!({"agents": ["box/i1", "box/i2"]});
    for more in [&json!({}), &both] {
        assert_eq!(post(&rig, more).await, (200, first.clone()));
    }
    for agents in [&["box/i1"][..], &["box/i3"], &["box", "box/i3"]] {
        let more = json!({"agents": agents});
        rig.refused("POST", "/jobs", &body(&more), 409).await;
    }
    // The tokens of the further ones are taken as well.
    let taken = json!({"agents": ["box/i3"], "token": further});
    rig.refused("POST", "/jobs", &body(&taken), 409).await;
    for agent in [&mut a, &mut b, &mut c] {
        agent.nothing_came().await;
    }
    rig.kill().await;
    drop((a, b, c));
    let (status, again) = post(&rig, &json!({})).await;
    assert_eq!((status, &again["jobs"][1]["id"]), (200, &json!(further)));
    let list: Value = rig.client.get("/jobs").await.unwrap();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 2);
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

#[tokio::test]
async fn a_name_means_what_it_meant() {
    let mut rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j").await;
    let (status, first) = post(&rig, &json!({})).await;
    assert_eq!(status, 201);
    let command = agent.expect(payload::COMMAND).await;
    let known = rig.told("GET", "/identifiers", b"", 200).await;
    let id = known["identifiers"][0]["id"].as_str().unwrap().to_owned();
    let renamed = json!({"name": "shed"}).to_string();
    rig.told(
        "PATCH",
        &format!("/identifiers/{id}"),
        renamed.as_bytes(),
        200,
    )
    .await;
    assert_eq!(post(&rig, &json!({})).await, (200, first));
    // By its new name it is the same, and another device of the old one changes nothing.
    let other = json!({"identifier": "another-identifier-of-some-length", "name": "box"});
    rig.client
        .post::<Value>("/identifiers", &other)
        .await
        .unwrap();
    for name in ["shed", "box", "box/i1"] {
        assert_eq!(post(&rig, &json!({"agents": [name]})).await.0, 200);
    }
    agent.succeed(&command, 0).await;
    rig.ended(TOKEN).await;
    rig.restart().await;
    let (status, ended) = post(&rig, &json!({})).await;
    assert_eq!((status, &ended["jobs"][0]), (200, &rig.job(TOKEN).await));
    for agents in [
        json!(["box/i2"]),
        json!(["nobody"]),
        json!(["box", "nobody"]),
    ] {
        assert_eq!(post(&rig, &json!({"agents": agents})).await.0, 409);
    }
}

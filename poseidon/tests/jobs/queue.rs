//! Jobs that wait in the store.

use crate::common::*;
use serde_json::{Value, json};
use triton::message::payload;

/// A registered agent that was here and is down.
async fn down(rig: &Rig) {
    rig.register("box").await;
    drop(rig.journaled("i1", "j1").await);
    rig.is_down("box").await;
}

#[tokio::test]
async fn queued_jobs_wait_for_their_agent_and_are_sent_in_order() {
    let mut rig = rig().await;
    down(&rig).await;
    let mut jobs = Vec::new();
    for n in 0..3 {
        let job = rig
            .queue("box", json!({"argv": ["echo", n.to_string()]}))
            .await;
        assert_eq!(job["state"], "queued");
        let wait = job["expires"].as_f64().unwrap() - job["created"].as_f64().unwrap();
        assert!((86_399.0..86_401.0).contains(&wait), "{wait}");
        jobs.push(job["id"].as_str().unwrap().to_owned());
    }
    // Without it the operator is told at once.
    let body = json!({"agents": ["box"], "command": {"argv": ["true"]}});
    let e = rig.client.post::<Value>("/jobs", &body).await.unwrap_err();
    assert!(e.contains("down"), "{e}");
    rig.restart().await;
    let list: Value = rig
        .client
        .get("/jobs?state=queued&agent=box")
        .await
        .unwrap();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 3);
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    for id in &jobs {
        let command = agent.expect(payload::COMMAND).await;
        assert_eq!(command.id, *id);
        let request: payload::Command = command.read().unwrap();
        assert_eq!(request.not_after, None);
        rig.state(id, "sent").await;
    }
    for (n, id) in (1..).zip(&jobs) {
        agent
            .record(id, "result", n, json!({"status": "succeeded"}))
            .await;
        rig.ended(id).await;
    }
    let list: Value = rig.client.get("/jobs?state=ended&limit=2").await.unwrap();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 2);
    let list: Value = rig.client.get("/jobs?state=queued").await.unwrap();
    assert_eq!(list["jobs"], json!([]));
}

#[tokio::test]
async fn a_job_for_one_that_is_up_is_sent_at_once_with_queue_too() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let job = rig.queue("box", json!({"argv": ["true"]})).await;
    assert_eq!(job["state"], "sent");
    assert_eq!(agent.expect(payload::COMMAND).await.id, job["id"]);
}

#[tokio::test]
async fn a_wait_has_an_end() {
    let mut rig = rig().await;
    down(&rig).await;
    let brief = |seconds: Value| json!({"agents": ["box"], "command": {"argv": ["true"]}, "queue": true, "expiresSeconds": seconds});
    for seconds in [json!(0), json!(31_536_001), json!(-1), json!(1.5)] {
        let body = brief(seconds);
        assert!(
            rig.client.post::<Value>("/jobs", &body).await.is_err(),
            "{body}"
        );
    }
    let mut without = brief(json!(9));
    without["queue"] = json!(false);
    assert!(rig.client.post::<Value>("/jobs", &without).await.is_err());
    let post = async |rig: &Rig| -> String {
        let answer: Value = rig.client.post("/jobs", &brief(json!(1))).await.unwrap();
        answer["jobs"][0]["id"].as_str().unwrap().to_owned()
    };
    let id = post(&rig).await;
    let job = rig.ended(&id).await;
    assert_eq!(job["error"]["code"], "expired");
    // Over a restart as well.
    let id = post(&rig).await;
    rig.restart().await;
    assert_eq!(rig.ended(&id).await["error"]["code"], "expired");
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let next = rig.queue("box", json!({"argv": ["true"]})).await;
    assert_eq!(agent.expect(payload::COMMAND).await.id, next["id"]);
}

#[tokio::test]
async fn a_queued_job_can_be_cancelled() {
    let rig = rig().await;
    down(&rig).await;
    let job = rig.queue("box", json!({"argv": ["true"]})).await;
    let id = job["id"].as_str().unwrap();
    let path = format!("/jobs/{id}/cancel");
    let answer: Value = rig.client.post(&path, &json!({})).await.unwrap();
    assert_eq!(
        (&answer["job"]["state"], &answer["job"]["error"]["code"]),
        (&json!("ended"), &json!("cancelled"))
    );
    assert!(rig.client.post::<Value>(&path, &json!({})).await.is_err());
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let next = rig.queue("box", json!({"argv": ["true"]})).await;
    assert_eq!(agent.expect(payload::COMMAND).await.id, next["id"]);
}

#[tokio::test]
async fn what_a_busy_agent_does_not_take_waits_until_a_job_ends() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let first = rig.queue("box", json!({"argv": ["long"]})).await;
    agent.expect(payload::COMMAND).await;
    let first = first["id"].as_str().unwrap();
    agent.record(first, "accepted", 1, json!({})).await;
    agent.acked(1).await;
    let second = rig.queue("box", json!({"argv": ["true"]})).await;
    let second = second["id"].as_str().unwrap();
    let command = agent.expect(payload::COMMAND).await;
    let busy = json!({"code": "busy", "message": "all workers are busy"});
    agent.send(&command.reply(payload::ERROR, &busy)).await;
    rig.state(second, "queued").await;
    // One that may not wait ends with what the agent says.
    let third = rig.run("box", json!({"argv": ["true"]})).await;
    let command = agent.expect(payload::COMMAND).await;
    assert_eq!(command.id, third);
    agent.send(&command.reply(payload::ERROR, &busy)).await;
    assert_eq!(rig.ended(&third).await["error"]["code"], "busy");
    assert_eq!(rig.job(second).await["state"], "queued");
    agent
        .record(first, "result", 2, json!({"status": "succeeded"}))
        .await;
    agent.acked(2).await;
    assert_eq!(agent.expect(payload::COMMAND).await.id, second);
}

#[tokio::test]
async fn an_agent_gets_no_more_than_it_takes() {
    const JOBS: usize = 40;
    let rig = rig().await;
    down(&rig).await;
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        let job = rig.queue("box", json!({"argv": ["true"]})).await;
        jobs.push(job["id"].as_str().unwrap().to_owned());
    }
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    for id in &jobs[..16] {
        assert_eq!(agent.expect(payload::COMMAND).await.id, *id);
    }
    rig.state(&jobs[15], "sent").await;
    assert_eq!(rig.job(&jobs[16]).await["state"], "queued");
    agent.nothing_came().await;
    // Each that is accepted lets another one come.
    let mut at = 16;
    for (n, id) in jobs.iter().enumerate() {
        agent.record(id, "accepted", n as u64 + 1, json!({})).await;
        let mut acked = false;
        while !acked || (at < JOBS && at < 17 + n) {
            let message = agent.next().await.unwrap();
            if message.kind == payload::ACK {
                acked = true;
            } else {
                assert_eq!(message.id, jobs[at]);
                at += 1;
            }
        }
    }
    assert_eq!(at, JOBS);
}

#[tokio::test]
async fn who_is_forgotten_gets_nothing_any_more() {
    let rig = rig().await;
    down(&rig).await;
    let job = rig.queue("box", json!({"argv": ["true"]})).await;
    rig.client.delete("/agents/box").await.unwrap();
    let job = rig.job(job["id"].as_str().unwrap()).await;
    assert_eq!(job["error"]["code"], "forgotten");
}

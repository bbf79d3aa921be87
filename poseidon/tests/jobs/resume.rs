//! What Poseidon does about open jobs after a reconnect: each row of the protocol's table.

use crate::common::*;
use serde_json::{Value, json};
use triton::message::{Message, payload};

/// An agent with the journal `j1` that got a job, and is gone.
async fn sent(rig: &Rig, accepted: bool) -> (String, Message) {
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let id = rig
        .run("box", json!({"argv": ["long"], "notBefore": 5}))
        .await;
    let command = agent.expect(payload::COMMAND).await;
    if accepted {
        agent.record(&id, "accepted", 1, json!({})).await;
        agent.acked(1).await;
    }
    drop(agent);
    rig.is_down("box").await;
    (id, command)
}

async fn is_asked(agent: &mut Agent, id: &str) -> Message {
    let question = agent.expect(payload::COMMAND).await;
    assert_eq!(question.id, id);
    let request: payload::Command = question.read().unwrap();
    assert_eq!((request.not_after, request.not_before), (Some(1.0), None));
    question
}

/// The next command is that of a new job: nothing was sent or asked for before it.
async fn is_left_alone(rig: &Rig, agent: &mut Agent) {
    let id = rig.run("box", json!({"argv": ["next"]})).await;
    assert_eq!(agent.expect(payload::COMMAND).await.id, id);
}

#[tokio::test]
async fn what_was_sent_is_sent_again_where_the_journal_is_the_same() {
    let mut rig = rig().await;
    let (id, command) = sent(&rig, false).await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let again = agent.expect(payload::COMMAND).await;
    assert_eq!(again, command);
    is_left_alone(&rig, &mut agent).await;
    drop(agent);
    // And after a restart, for the journal's id is stored.
    rig.restart().await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    assert_eq!(agent.expect(payload::COMMAND).await, command);
    // The agent has it: it says where it stands, which is no record.
    agent
        .send(&command.reply(payload::ACCEPTED, &json!({"state": "running"})))
        .await;
    rig.state(&id, "accepted").await;
}

#[tokio::test]
async fn a_kill_between_storing_and_sending_sends_again() {
    let mut rig = daemon().await;
    let (id, command) = sent(&rig, false).await;
    rig.kill().await;
    assert_eq!(rig.job(&id).await["state"], "sent");
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    assert_eq!(agent.expect(payload::COMMAND).await, command);
}

#[tokio::test]
async fn what_was_sent_is_asked_for_where_the_journal_is_another() {
    let rig = rig().await;
    let (id, _) = sent(&rig, false).await;
    let (mut agent, _) = rig.journaled("i1", "j2").await;
    let question = is_asked(&mut agent, &id).await;
    let expired = json!({"status": "expired"});
    agent.send(&question.reply(payload::RESULT, &expired)).await;
    assert_eq!(rig.ended(&id).await["error"]["code"], "lost");
}

#[tokio::test]
async fn a_question_may_be_answered_by_a_record() {
    let rig = rig().await;
    let (id, _) = sent(&rig, false).await;
    let (mut agent, _) = rig.journaled("i1", "j2").await;
    is_asked(&mut agent, &id).await;
    agent
        .record(&id, "result", 1, json!({"status": "expired"}))
        .await;
    agent.acked(1).await;
    assert_eq!(rig.job(&id).await["error"]["code"], "lost");
    assert_eq!(rig.history("").await[0]["data"]["status"], "expired");
}

#[tokio::test]
async fn what_was_accepted_is_waited_for_where_the_journal_is_the_same() {
    let mut rig = rig().await;
    let (id, _) = sent(&rig, true).await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    is_left_alone(&rig, &mut agent).await;
    drop(agent);
    rig.restart().await;
    let (mut agent, acked) = rig.journaled("i1", "j1").await;
    assert_eq!(acked, 1);
    // The other job of this test was sent, and is again.
    assert_ne!(agent.expect(payload::COMMAND).await.id, id);
    is_left_alone(&rig, &mut agent).await;
    agent
        .record(&id, "result", 2, json!({"status": "interrupted"}))
        .await;
    agent.acked(2).await;
    assert_eq!(rig.job(&id).await["result"]["status"], "interrupted");
}

#[tokio::test]
async fn what_was_accepted_is_asked_for_where_the_journal_is_another() {
    let rig = rig().await;
    let (id, _) = sent(&rig, true).await;
    let (mut agent, _) = rig.journaled("i1", "j2").await;
    let question = is_asked(&mut agent, &id).await;
    // It knows the job all the same.
    agent
        .send(&question.reply(payload::ACCEPTED, &json!({"state": "running"})))
        .await;
    agent.nothing_came().await;
    assert_eq!(rig.job(&id).await["state"], "accepted");
    drop(agent);
    // An agent that had no room for a job that it knows would still know it.
    let (mut agent, _) = rig.journaled("i1", "j3").await;
    let question = is_asked(&mut agent, &id).await;
    let busy = json!({"code": "busy", "message": "no room"});
    agent.send(&question.reply(payload::ERROR, &busy)).await;
    assert_eq!(rig.ended(&id).await["error"]["code"], "lost");
}

#[tokio::test]
async fn an_agent_without_a_journal_is_asked() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let id = rig.run("box", json!({"argv": ["long"]})).await;
    agent.expect(payload::COMMAND).await;
    drop(agent);
    rig.is_down("box").await;
    let mut agent = rig.agent("i1").await;
    is_asked(&mut agent, &id).await;
}

#[tokio::test]
async fn the_job_of_a_plain_triton_is_lost_and_not_started_again() {
    let mut rig = daemon().await;
    rig.register("box").await;
    let beat = Message::with("heartbeat", &json!({"uptime": 1}));
    let mut agent = Agent::connect(rig.url(), Some(IDENTIFIER), "/")
        .await
        .unwrap();
    agent.send(&beat).await;
    eventually("plain", async || {
        rig.client.get::<Value>("/agents/box").await.ok()
    })
    .await;
    let id = rig.run("box", json!({"argv": ["long"]})).await;
    agent.expect(payload::COMMAND).await;
    rig.kill().await;
    let mut agent = Agent::connect(rig.url(), Some(IDENTIFIER), "/")
        .await
        .unwrap();
    agent.send(&beat).await;
    assert_eq!(rig.ended(&id).await["error"]["code"], "lost");
    is_left_alone(&rig, &mut agent).await;
}

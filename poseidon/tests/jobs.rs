//! Jobs and their output.
#![allow(missing_docs)]

mod common;
#[path = "jobs/queue.rs"]
mod queue;
#[path = "jobs/repeated.rs"]
mod repeated;
#[path = "jobs/resume.rs"]
mod resume;

use common::*;
use serde_json::{Value, json};
use triton::message::{Message, payload};

#[tokio::test]
async fn a_command_runs_and_its_output_streams() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let id = rig
        .run("box", json!({"argv": ["echo", "hello"], "nice": 3}))
        .await;
    let command = agent.expect(payload::COMMAND).await;
    assert_eq!((&command.id, &command.conversation_id), (&id, &id));
    let request: payload::Command = command.read().unwrap();
    assert_eq!(
        (request.argv.unwrap(), request.nice),
        (vec!["echo".to_owned(), "hello".to_owned()], Some(3))
    );
    let mut lines = rig
        .client
        .lines(&format!("/jobs/{id}/output?follow=true"))
        .await
        .unwrap();
    let mut next = async || -> Value {
        serde_json::from_slice(&within(lines.next()).await.unwrap().unwrap()).unwrap()
    };
    agent
        .send(&command.reply(payload::ACCEPTED, &json!({})))
        .await;
    agent.output(&command, 0, b"hel").await;
    let line = json!({"type": "output", "stream": "stdout", "offset": 0, "data": "hel", "encoding": "utf8"});
    assert_eq!(next().await, line);
    assert_eq!(rig.job(&id).await["state"], "accepted");
    agent.output(&command, 3, b"lo\xff").await;
    assert_eq!(next().await["encoding"], "base64");
    agent
        .send(&command.reply("progress", &json!({"percent": 40, "message": "unpacking"})))
        .await;
    assert_eq!(
        next().await,
        json!({"type": "progress", "percent": 40.0, "message": "unpacking"})
    );
    agent.output(&command, 10, b"x").await;
    assert_eq!(
        next().await,
        json!({"type": "gap", "stream": "stdout", "offset": 6, "length": 4})
    );
    assert_eq!(next().await["offset"], 10);
    agent.succeed(&command, 20).await;
    assert_eq!(
        next().await,
        json!({"type": "gap", "stream": "stdout", "offset": 11, "length": 9})
    );
    let end = next().await;
    assert_eq!(
        (&end["type"], &end["job"]["result"]["exitCode"]),
        (&json!("end"), &json!(0))
    );
    assert_eq!(rig.output(&id, false).await.len(), 7);
    let list: Value = rig.client.get("/jobs?agent=box&limit=5").await.unwrap();
    assert_eq!(list["jobs"][0]["id"], json!(id));
}

/// What was on its way while there was no connection is in the last bytes that the result has.
#[tokio::test]
async fn the_end_of_the_output_is_taken_from_the_result() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let output = |offset: u64, data: &str| json!({"type": "output", "stream": "stdout", "offset": offset, "data": data, "encoding": "utf8"});
    let gap = |offset: u64, length: u64| json!({"type": "gap", "stream": "stdout", "offset": offset, "length": length});
    let tail = |data: &str| json!({"stdout": {"data": data}, "stderr": {"data": ""}});
    for (total, tail, expected) in [
        // It reaches to what came, over it, or not so far.
        (9, tail("def"), vec![output(0, "012345"), output(6, "def")]),
        (
            8,
            tail("2345xy"),
            vec![output(0, "012345"), output(6, "xy")],
        ),
        (
            20,
            tail("def"),
            vec![output(0, "012345"), gap(6, 11), output(17, "def")],
        ),
        (20, tail(""), vec![output(0, "012345"), gap(6, 14)]),
        // Nothing is missing, and what cannot be is not believed.
        (6, tail("2345"), vec![output(0, "012345")]),
        (
            7,
            tail("far more than that"),
            vec![output(0, "012345"), gap(6, 1)],
        ),
        (
            8,
            json!({"stdout": {"data": "/wA=", "encoding": "base64"}, "stderr": {"data": ""}}),
            vec![
                output(0, "012345"),
                json!({"type": "output", "stream": "stdout", "offset": 6, "data": "/wA=", "encoding": "base64"}),
            ],
        ),
    ] {
        let id = rig.run("box", json!({"argv": ["true"]})).await;
        let command = agent.expect(payload::COMMAND).await;
        agent.output(&command, 0, b"012345").await;
        let result =
            json!({"status": "succeeded", "exitCode": 0, "stdoutBytes": total, "tail": tail});
        agent.send(&command.reply("result", &result)).await;
        rig.ended(&id).await;
        let mut lines = rig.output(&id, true).await;
        assert_eq!(lines.pop().unwrap()["type"], "end");
        assert_eq!(lines, expected, "{total}, {tail}");
    }
    // Who wants none is given none.
    let id = rig
        .run("box", json!({"argv": ["true"], "output": "discard"}))
        .await;
    let command = agent.expect(payload::COMMAND).await;
    let result =
        json!({"status": "succeeded", "exitCode": 0, "stdoutBytes": 3, "tail": tail("abc")});
    agent.send(&command.reply("result", &result)).await;
    rig.ended(&id).await;
    assert_eq!(rig.output(&id, true).await[0], gap(0, 3));
}

#[tokio::test]
async fn nothing_starts_where_a_name_is_unknown_or_down() {
    let rig = rig().await;
    rig.register("box").await;
    let command = json!({"argv": ["true"]});
    let never = json!({"agents": ["box"], "command": command});
    let e = rig.client.post::<Value>("/jobs", &never).await.unwrap_err();
    assert!(e.contains("box"), "{e}");
    let mut agent = rig.agent("i1").await;
    for body in [
        json!({"agents": ["box", "nobody"], "command": command}),
        json!({"agents": [], "command": command}),
        json!({"agents": ["box"], "command": {}}),
        json!({"agents": ["box"], "command": {"argv": []}}),
        json!({"agents": ["box"], "command": {"argv": ["a"], "shell": "b"}}),
        json!({"agents": ["box"], "command": {"argv": ["a"], "stdin": "?"}}),
        json!({"agents": ["box"], "command": {"argv": ["a\u{FFFE}"]}}),
        json!({"agents": ["box"], "command": {"argv": ["a".repeat(1 << 20)]}}),
    ] {
        assert!(
            rig.client.post::<Value>("/jobs", &body).await.is_err(),
            "{body:.100}"
        );
    }
    let list: Value = rig.client.get("/jobs").await.unwrap();
    assert_eq!(list["jobs"], json!([]));
    agent.send(&Message::new("dance")).await;
    agent.expect(payload::ERROR).await;
    drop(agent);
    eventually("down", async || {
        (rig.show("box").await["state"] == "down").then_some(())
    })
    .await;
    let e = rig.client.post::<Value>("/jobs", &never).await.unwrap_err();
    assert!(e.contains("box/i1"), "{e}");
}

#[tokio::test]
async fn a_name_means_all_its_instances() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut a, mut b) = (rig.agent("aa").await, rig.agent("ab").await);
    let body = json!({"agents": ["box", "box/aa"], "command": {"argv": ["true"]}});
    let answer: Value = rig.client.post("/jobs", &body).await.unwrap();
    assert_eq!(answer["jobs"].as_array().unwrap().len(), 2);
    let e = rig.client.get::<Value>("/agents/box").await.unwrap_err();
    assert!(e.contains("2 instances"), "{e}");
    let ambiguous = json!({"agents": ["box/a"], "command": {"argv": ["true"]}});
    assert!(rig.client.post::<Value>("/jobs", &ambiguous).await.is_err());
    // Nobody speaks for another's job.
    let command = a.expect(payload::COMMAND).await;
    b.expect(payload::COMMAND).await;
    b.succeed(&command, 0).await;
    b.send(&Message::new("dance")).await;
    b.expect(payload::ERROR).await;
    assert_eq!(rig.job(&command.id).await["state"], "sent");
    a.succeed(&command, 0).await;
    rig.ended(&command.id).await;
}

#[tokio::test]
async fn a_cancel_reaches_the_agent() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let id = rig.run("box", json!({"argv": ["sleep", "9"]})).await;
    let command = agent.expect(payload::COMMAND).await;
    let path = format!("/jobs/{id}/cancel");
    rig.client
        .post::<Value>(&path, &json!({"graceSeconds": 1}))
        .await
        .unwrap();
    let cancel: payload::Cancel = agent.expect(payload::CANCEL).await.read().unwrap();
    assert_eq!((cancel.job, cancel.grace_seconds), (id.clone(), Some(1.0)));
    let result = json!({"status": "cancelled", "signal": 15});
    agent.send(&command.reply(payload::RESULT, &result)).await;
    assert_eq!(rig.ended(&id).await["result"]["status"], "cancelled");
    let e = rig
        .client
        .post::<Value>(&path, &json!({}))
        .await
        .unwrap_err();
    assert!(e.contains("ended"), "{e}");
    // A job that the agent does not know ends with what the agent says.
    let id = rig.run("box", json!({"argv": ["sleep", "9"]})).await;
    agent.expect(payload::COMMAND).await;
    rig.client
        .post::<Value>(&format!("/jobs/{id}/cancel"), &json!({}))
        .await
        .unwrap();
    let cancel = agent.expect(payload::CANCEL).await;
    agent
        .send(&cancel.reply(
            "error",
            &json!({"code": "not-found", "message": "no such job"}),
        ))
        .await;
    assert_eq!(rig.ended(&id).await["error"]["code"], "not-found");
}

#[tokio::test]
async fn an_error_ends_a_job() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let id = rig.run("box", json!({"argv": ["nothing"]})).await;
    let command = agent.expect(payload::COMMAND).await;
    agent
        .send(&command.reply("error", &json!({"code": "busy", "message": "later"})))
        .await;
    let job = rig.ended(&id).await;
    assert_eq!(job["error"], json!({"code": "busy", "message": "later"}));
    assert_eq!(job["result"], Value::Null);
}

#[tokio::test]
async fn a_job_goes_on_after_a_reconnect_and_a_restart() {
    let mut rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let id = rig.run("box", json!({"argv": ["long"]})).await;
    let command = agent.expect(payload::COMMAND).await;
    agent
        .send(&command.reply(payload::ACCEPTED, &json!({})))
        .await;
    agent.output(&command, 0, b"one ").await;
    eventually("accepted", async || {
        (rig.job(&id).await["state"] == "accepted").then_some(())
    })
    .await;
    eventually("stored", async || {
        (!rig.output(&id, false).await.is_empty()).then_some(())
    })
    .await;
    drop(agent);
    let mut agent = rig.agent("i1").await;
    agent.output(&command, 4, b"two ").await;
    eventually("stored", async || {
        (rig.output(&id, false).await.len() == 2).then_some(())
    })
    .await;
    drop(agent);
    rig.restart().await;
    assert_eq!(rig.job(&id).await["state"], "accepted");
    let mut agent = rig.agent("i1").await;
    agent.output(&command, 4, b"two ").await;
    agent.output(&command, 8, b"three").await;
    agent.succeed(&command, 13).await;
    let text: String = rig
        .output(&id, true)
        .await
        .iter()
        .filter_map(|line| line["data"].as_str())
        .collect();
    assert_eq!(text, "one two three");
    rig.restart().await;
    assert_eq!(rig.job(&id).await["result"]["status"], "succeeded");
}

#[tokio::test]
async fn output_over_the_limit_is_a_gap() {
    let rig = rig_with(|settings| settings.job_output_bytes = 1000).await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let id = rig.run("box", json!({"argv": ["yes"]})).await;
    let command = agent.expect(payload::COMMAND).await;
    for n in 0..10 {
        agent.output(&command, n * 300, &[b'y'; 300]).await;
    }
    agent.succeed(&command, 3000).await;
    rig.ended(&id).await;
    let lines = rig.output(&id, true).await;
    assert_eq!(
        lines[lines.len() - 2],
        json!({"type": "gap", "stream": "stdout", "offset": 900, "length": 2100})
    );
}

#[tokio::test]
async fn several_readers_of_any_speed_get_all_of_it() {
    const CHUNK: usize = 32 << 10;
    const CHUNKS: usize = 512;
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let id = rig.run("box", json!({"argv": ["yes"]})).await;
    let command = agent.expect(payload::COMMAND).await;
    let slow = rig
        .client
        .lines(&format!("/jobs/{id}/output?follow=true"))
        .await
        .unwrap();
    let write = async {
        for n in 0..CHUNKS {
            agent
                .output(&command, (n * CHUNK) as u64, &vec![b'y'; CHUNK])
                .await;
        }
        agent.succeed(&command, (CHUNKS * CHUNK) as u64).await;
    };
    let count = |lines: &[Value]| -> usize {
        lines
            .iter()
            .filter_map(|l| l["data"].as_str())
            .map(str::len)
            .sum()
    };
    let ((), fast) = tokio::join!(write, rig.output(&id, true));
    assert_eq!(count(&fast), CHUNK * CHUNKS);
    // The slow one has not read a byte so far, and late ones come after the end.
    let mut slow = slow;
    let mut lines = Vec::new();
    while let Some(line) = within(slow.next()).await.unwrap() {
        lines.push(serde_json::from_slice(&line).unwrap());
    }
    assert_eq!(count(&lines), CHUNK * CHUNKS);
    assert_eq!(rig.output(&id, false).await, lines);
}

#[tokio::test]
async fn the_output_of_pruned_jobs_and_of_forgotten_agents_is_deleted() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let job = rig.run("box", json!({"argv": ["echo"]})).await;
        let command = agent.expect(payload::COMMAND).await;
        agent.output(&command, 0, b"hello").await;
        agent.succeed(&command, 5).await;
        rig.ended(&job).await;
        jobs.push(job);
    }
    let files = || -> Vec<bool> {
        let output = rig.dir.path().join("data/output");
        jobs.iter().map(|job| output.join(job).exists()).collect()
    };
    assert_eq!(files(), [true, true, true]);
    let app = rig.server.as_ref().unwrap().app();
    app.jobs.prune(2).await.unwrap();
    assert_eq!(files(), [false, true, true]);
    assert!(
        rig.client
            .get::<Value>(&format!("/jobs/{}", jobs[0]))
            .await
            .is_err()
    );
    rig.client
        .delete(&format!("/identifiers/{IDENTIFIER}"))
        .await
        .unwrap();
    assert_eq!(files(), [false, false, false]);
    // The job itself is still known, and what it wrote is a gap.
    let lines = rig.output(&jobs[2], true).await;
    assert_eq!(lines[0]["type"], "gap");
}

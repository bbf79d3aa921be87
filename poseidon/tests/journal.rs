//! Records of agents' journals: stored before they are acknowledged, each once, and found again.
#![allow(missing_docs)]

mod common;

use common::*;
use rusqlite::Connection;
use serde_json::{Value, json};
use triton::message::{Message, payload};

fn ids(records: &[Value]) -> Vec<u64> {
    records.iter().map(|r| r["id"].as_u64().unwrap()).collect()
}

/// The store as somebody else sees it.
fn database(rig: &Rig) -> Connection {
    Connection::open(rig.dir.path().join("data/poseidon.db")).unwrap()
}

#[tokio::test]
async fn records_are_stored_once_and_acknowledged() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, acked) = rig.journaled("i1", "j1").await;
    assert_eq!(acked, 0);
    let id = rig.run("box", json!({"argv": ["echo"]})).await;
    let command = agent.expect(payload::COMMAND).await;
    agent.record(&id, "accepted", 1, json!({})).await;
    agent.acked(1).await;
    assert_eq!(rig.job(&id).await["state"], "accepted");
    agent.output(&command, 0, b"hello").await;
    // There may be gaps, and a job of a local client is none of Poseidon's.
    let result = json!({"status": "succeeded", "exitCode": 0, "stdoutBytes": 5});
    agent.record(&id, "result", 3, result.clone()).await;
    let error = json!({"code": "not-found", "message": "no such program"});
    agent.record("local", "error", 4, error).await;
    agent.values(5..=6).await;
    agent.acked(6).await;
    let job = rig.job(&id).await;
    assert_eq!((&job["state"], &job["result"]), (&json!("ended"), &result));
    assert_eq!(rig.output(&id, false).await[0]["data"], "hello");
    let records = rig.history("order=asc").await;
    let seen: Vec<_> = records
        .iter()
        .map(|r| (r["id"].as_u64().unwrap(), r["code"].as_u64().unwrap()))
        .collect();
    assert_eq!(seen, [(1, 0), (3, 1), (4, 2), (5, 200), (6, 200)]);
    let one = &records[1];
    assert_eq!(
        (&one["agent"], &one["instance"], &one["token"], &one["data"]),
        (&json!("box"), &json!("i1"), &json!(id), &result)
    );
    assert_eq!(
        (&one["etime"], &one["ctime"]),
        (&json!(1003.0), &json!(2003.0))
    );
    // What comes again is acknowledged and nothing else.
    agent.record(&id, "accepted", 1, json!({})).await;
    agent.values(5..=6).await;
    agent.acked(6).await;
    assert_eq!(rig.history("").await.len(), 5);
    drop(agent);
    let (mut agent, acked) = rig.journaled("i1", "j1").await;
    assert_eq!(acked, 6);
    // Order goes by the sequence: what is below the last one counts as stored.
    agent.values(9..=9).await;
    agent.values(7..=7).await;
    agent.values(10..=10).await;
    agent.acked(10).await;
    assert_eq!(ids(&rig.history("id=6&agent=box").await), [9, 10]);
}

#[tokio::test]
async fn a_duplicate_ends_a_job_that_is_still_open() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    agent.values(1..=5).await;
    agent.acked(5).await;
    let id = rig.run("box", json!({"argv": ["echo"]})).await;
    agent.expect(payload::COMMAND).await;
    agent
        .record(&id, "result", 4, json!({"status": "failed", "exitCode": 7}))
        .await;
    agent.acked(5).await;
    assert_eq!(rig.job(&id).await["result"]["exitCode"], 7);
    assert_eq!(
        ids(&rig.history("agent=box&order=asc").await),
        [1, 2, 3, 4, 5]
    );
}

#[tokio::test]
async fn an_agent_without_a_journal_is_not_acknowledged() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = Agent::connect(rig.url(), Some(IDENTIFIER), "/")
        .await
        .unwrap();
    assert_eq!(agent.hello("i1").await.acked, None);
    let id = rig.run("box", json!({"argv": ["echo"]})).await;
    agent.expect(payload::COMMAND).await;
    agent
        .record(&id, "result", 1, json!({"status": "succeeded"}))
        .await;
    rig.ended(&id).await;
    agent.nothing_came().await;
    assert_eq!(rig.history("").await, [Value::Null; 0]);
}

#[tokio::test]
async fn what_the_store_does_not_take_is_not_acknowledged() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let id = rig.run("box", json!({"argv": ["echo"]})).await;
    agent.expect(payload::COMMAND).await;
    let full = "CREATE TRIGGER full BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    database(&rig).execute_batch(full).unwrap();
    agent
        .record(&id, "result", 1, json!({"status": "succeeded"}))
        .await;
    agent.values(2..=3).await;
    // The connection goes on, and nothing is said of the records; twice, for the first try may not be over.
    for uptime in 1..=2 {
        let beat = json!({"uptime": uptime});
        agent.send(&Message::with("heartbeat", &beat)).await;
        agent.nothing_came().await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    assert_eq!(rig.job(&id).await["state"], "sent");
    assert_eq!(rig.show("box").await["state"], "up");
    database(&rig).execute_batch("DROP TRIGGER full").unwrap();
    agent.acked(3).await;
    assert_eq!(rig.job(&id).await["state"], "ended");
    assert_eq!(rig.history("").await.len(), 3);
}

#[tokio::test]
async fn what_was_received_before_a_connection_broke_is_stored() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    for n in 0..20 {
        agent.values(n * 10 + 1..=n * 10 + 10).await;
    }
    // Its last bytes are followed by its end, while a batch is on its way.
    agent.socket.close(None).await.unwrap();
    let (_agent, acked) = eventually("all of it", async || {
        let (agent, acked) = rig.journaled("i1", "j1").await;
        (acked == 200).then_some((agent, acked))
    })
    .await;
    let records = rig.history("limit=1000&order=asc").await;
    assert_eq!(ids(&records), (1..=acked).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_comes_during_the_goodbye_comes_again() {
    let mut rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let id = rig.run("box", json!({"argv": ["echo"]})).await;
    agent.expect(payload::COMMAND).await;
    agent.record(&id, "accepted", 1, json!({})).await;
    agent.acked(1).await;
    let token = id.clone();
    let late = tokio::spawn(async move {
        agent.expect(payload::BYE).await;
        let result = json!({"status": "succeeded"});
        agent.record(&token, "result", 2, result).await;
        assert_eq!(agent.next().await, None);
    });
    rig.restart().await;
    late.await.unwrap();
    assert_eq!(rig.job(&id).await["state"], "accepted");
    let (mut agent, acked) = rig.journaled("i1", "j1").await;
    assert_eq!(acked, 1);
    agent
        .record(&id, "result", 2, json!({"status": "succeeded"}))
        .await;
    agent.acked(2).await;
    assert_eq!(rig.job(&id).await["state"], "ended");
}

#[tokio::test]
async fn a_kill_forgets_nothing_that_was_acknowledged() {
    let mut rig = daemon().await;
    rig.register("box").await;
    let mut last = 0;
    for round in 1..=5_u64 {
        let (mut agent, acked) = rig.journaled("i1", "j1").await;
        assert_eq!(acked, last);
        let id = rig.run("box", json!({"argv": ["echo"]})).await;
        agent.expect(payload::COMMAND).await;
        agent.record(&id, "accepted", last + 1, json!({})).await;
        agent.values(last + 2..=last + 1 + round).await;
        last += round + 2;
        agent
            .record(&id, "result", last, json!({"status": "succeeded"}))
            .await;
        agent.acked(last).await;
        rig.kill().await;
        assert_eq!(rig.job(&id).await["result"]["status"], "succeeded");
        let records = rig.history("limit=1000&order=asc").await;
        assert_eq!(ids(&records), (1..=last).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_job_goes_on_over_a_kill_and_its_watcher_gets_the_rest() {
    let mut rig = daemon().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let id = rig.run("box", json!({"argv": ["long"]})).await;
    let command = agent.expect(payload::COMMAND).await;
    agent.record(&id, "accepted", 1, json!({})).await;
    agent.acked(1).await;
    let path = format!("/jobs/{id}/output?follow=true");
    let mut watcher = rig.client.lines(&path).await.unwrap();
    agent.output(&command, 0, b"one ").await;
    let line = within(watcher.next()).await.unwrap().unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&line).unwrap()["data"],
        "one "
    );
    rig.kill().await;
    // The stream breaks off: it has no end.
    assert!(!matches!(within(watcher.next()).await, Ok(Some(_))));
    assert_eq!(rig.job(&id).await["state"], "accepted");
    let watcher = rig.output(&id, true);
    let goes_on = async {
        let (mut agent, acked) = rig.journaled("i1", "j1").await;
        assert_eq!(acked, 1);
        // Eight bytes were written while there was no connection.
        agent.output(&command, 12, b"three").await;
        // So were the last three, which the result has as well.
        let tail = json!({"stdout": {"data": "hreesix"}, "stderr": {"data": ""}});
        let result = json!({"status": "succeeded", "stdoutBytes": 20, "dropped": 11, "tail": tail});
        agent.record(&id, "result", 2, result).await;
        agent.acked(2).await;
    };
    let (lines, ()) = tokio::join!(watcher, goes_on);
    assert_eq!(
        lines[1],
        json!({"type": "gap", "stream": "stdout", "offset": 4, "length": 8})
    );
    assert_eq!(
        (&lines[0]["data"], &lines[2]["data"]),
        (&json!("one "), &json!("three"))
    );
    assert_eq!(
        (&lines[3]["offset"], &lines[3]["data"]),
        (&json!(17), &json!("six"))
    );
    assert_eq!(lines[4]["job"]["result"]["dropped"], 11);
}

#[tokio::test]
async fn records_are_found_by_what_they_are() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut a, _) = rig.journaled("aa", "ja").await;
    let (mut b, _) = rig.journaled("bb", "jb").await;
    a.record("t1", "accepted", 1, json!({})).await;
    a.record("t1", "result", 2, json!({"status": "failed"}))
        .await;
    a.acked(2).await;
    b.values(1..=4).await;
    b.acked(4).await;
    let found = async |query: &str| -> Vec<(String, u64)> {
        let records = rig.history(query).await;
        let name = |r: &Value| r["instance"].as_str().unwrap().to_owned();
        records
            .iter()
            .map(|r| (name(r), r["id"].as_u64().unwrap()))
            .collect()
    };
    let of = |instance: &str, ids: &[u64]| -> Vec<(String, u64)> {
        ids.iter().map(|id| (instance.to_owned(), *id)).collect()
    };
    assert_eq!(found("limit=1").await, of("bb", &[4]));
    assert_eq!(found("token=t1").await, of("aa", &[2, 1]));
    assert_eq!(found("code=2").await, of("aa", &[2]));
    assert_eq!(found("agent=box/bb&id=2").await, of("bb", &[3, 4]));
    assert_eq!(found("agent=box%2Faa").await, of("aa", &[2, 1]));
    assert_eq!(
        found("agent=box&order=asc&limit=3").await[2],
        ("bb".to_owned(), 1)
    );
    assert_eq!(found("etime=1003&order=asc").await, of("bb", &[3, 4]));
    assert_eq!(found("ctime=2004").await, of("bb", &[4]));
    assert_eq!(found("token=t1&code=0&etime=1001").await, of("aa", &[1]));
    assert_eq!(found("token=t1&code=0&etime=1001.5").await, []);
    // All of it, a page at a time.
    let (mut after, mut all) = (0, Vec::new());
    loop {
        let path = format!("/history?after={after}&limit=2");
        let page: Value = rig.client.get(&path).await.unwrap();
        all.extend(ids(page["records"].as_array().unwrap()));
        if page["more"] == false {
            break;
        }
        after = page["records"][1]["row"].as_u64().unwrap();
    }
    assert_eq!(all, [1, 2, 1, 2, 3, 4]);
    for query in [
        "limit=0",
        "limit=1001",
        "order=up",
        "code=-1",
        "agent=nobody",
    ] {
        let path = format!("/history?{query}");
        assert!(rig.client.get::<Value>(&path).await.is_err(), "{query}");
    }
}

#[tokio::test]
async fn old_records_make_room_and_what_is_acknowledged_is_remembered() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    agent.values(1..=10).await;
    agent.acked(10).await;
    let app = rig.server.as_ref().unwrap().app();
    let prune = async |keep, at_most| {
        let pruned = app.db.call(move |store| store.prune_records(keep, at_most));
        pruned.await.unwrap()
    };
    assert_eq!(prune(10, 100).await, 0);
    assert_eq!(prune(4, 2).await, 2);
    assert_eq!(prune(4, 100).await, 4);
    assert_eq!(ids(&rig.history("order=asc").await), [7, 8, 9, 10]);
    assert_eq!(prune(0, 100).await, 4);
    agent.values(1..=10).await;
    agent.acked(10).await;
    assert_eq!(rig.history("").await, [Value::Null; 0]);
    // A row that is gone is not used again.
    agent.values(11..=11).await;
    agent.acked(11).await;
    assert_eq!(rig.history("").await[0]["row"], 11);
}

#[tokio::test]
async fn the_records_of_who_is_forgotten_are_too() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let (mut other, _) = rig.journaled("i2", "j2").await;
    for agent in [&mut agent, &mut other] {
        agent.values(1..=2).await;
        agent.acked(2).await;
    }
    drop(agent);
    rig.is_down("box%2Fi1").await;
    rig.client.delete("/agents/box%2Fi1").await.unwrap();
    let left = rig.history("").await;
    assert!(left.len() == 2 && left.iter().all(|r| r["instance"] == "i2"));
    let (_agent, acked) = rig.journaled("i1", "j1").await;
    assert_eq!(acked, 0);
    rig.client
        .delete(&format!("/identifiers/{IDENTIFIER}"))
        .await
        .unwrap();
    assert_eq!(rig.history("").await, [Value::Null; 0]);
}

#[tokio::test]
async fn watchers_hear_of_records() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let mut lines = rig.client.lines("/events").await.unwrap();
    let mut next = async || -> Value {
        serde_json::from_slice(&within(lines.next()).await.unwrap().unwrap()).unwrap()
    };
    assert_eq!(next().await["type"], "fleet");
    agent.values(1..=3).await;
    let mut row = Value::Null;
    while row != 3 {
        let line = next().await;
        assert_eq!(
            (&line["type"], &line["agent"], &line["instance"]),
            (&json!("history"), &json!("box"), &json!("i1"))
        );
        row = line["row"].clone();
    }
}

#[tokio::test]
async fn a_folder_of_the_first_version_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let hash = poseidon::agents::hash(IDENTIFIER);
    let db = Connection::open(dir.path().join("data/poseidon.db")).unwrap();
    db.execute_batch(include_str!("../migrations/0001-first.sql"))
        .unwrap();
    db.execute_batch(&format!(
        "PRAGMA user_version = 1;
         INSERT INTO identifiers VALUES ('{hash}', 'box', 0, 1.0, '{{}}');
         INSERT INTO instances VALUES ('{hash}', 'i1', 0, '192.0.2.1:1', 1.0, 2.0, '{{\"hostname\":\"old\"}}', NULL, NULL);
         INSERT INTO jobs (token, identifier, instance, agent, state, created, request) VALUES
             ('sent', '{hash}', 'i1', 'box', 0, 1.0, '{{\"argv\":[\"a\"]}}'),
             ('accepted', '{hash}', 'i1', 'box', 1, 1.0, '{{\"argv\":[\"b\"]}}');
         INSERT INTO jobs (token, identifier, instance, agent, state, created, request, result) VALUES
             ('ended', '{hash}', 'i1', 'box', 2, 1.0, '{{\"argv\":[\"c\"]}}', '{{\"status\":\"succeeded\"}}');"
    ))
    .unwrap();
    drop(db);
    let rig = rig_in(dir, |_| {}).await;
    assert_eq!(rig.show("box").await["hello"]["hostname"], "old");
    let ended = rig.job("ended").await;
    assert_eq!(
        (&ended["result"]["status"], &ended["expires"]),
        (&json!("succeeded"), &Value::Null)
    );
    // Nobody knows which journal they were sent to: both are asked for.
    let (mut agent, acked) = rig.journaled("i1", "j1").await;
    assert_eq!(acked, 0);
    for token in ["sent", "accepted"] {
        let question = agent.expect(payload::COMMAND).await;
        assert_eq!(question.id, token);
        let request: payload::Command = question.read().unwrap();
        assert_eq!(request.not_after, Some(1.0));
    }
    agent.values(1..=1).await;
    agent.acked(1).await;
    assert_eq!(rig.history("agent=box").await.len(), 1);
}

/// One that is nested deep would make every list with it unreadable, and one that is not taken would block those behind.
#[tokio::test]
async fn what_nobody_could_read_of_a_record_is_left_out() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let id = rig.run("box", json!({"argv": ["echo"]})).await;
    agent.expect(payload::COMMAND).await;
    let deep = format!("{}{}", "[".repeat(125), "]".repeat(125));
    let history = format!(
        r#"{{"records":[{{"id":1,"token":"t","code":200,"etime":1,"ctime":1,"data":{deep}}}],"last":1}}"#
    );
    let message = Message {
        payload: Some(history),
        ..Message::new(payload::HISTORY)
    };
    agent.send(&message).await;
    agent.acked(1).await;
    let result = format!(
        r#"{{"sequence":2,"etime":2,"ctime":2,"status":"succeeded","x":{}{deep}{}}}"#,
        "[".repeat(50),
        "]".repeat(50)
    );
    let message = Message {
        conversation_id: id.clone(),
        payload: Some(result),
        ..Message::new(payload::RESULT)
    };
    agent.send(&message).await;
    agent.acked(2).await;
    // It has succeeded whatever else it says.
    assert_eq!(rig.job(&id).await["result"]["status"], "succeeded");
    // The same where it is no record.
    let id = rig.run("box", json!({"argv": ["echo"]})).await;
    let command = agent.expect(payload::COMMAND).await;
    let message = Message {
        payload: Some(format!(r#"{{"status":"succeeded","x":{deep}}}"#)),
        ..command.reply(payload::RESULT, &json!({}))
    };
    agent.send(&message).await;
    let result = &rig.ended(&id).await["result"];
    assert_eq!(result["status"], "succeeded");
    assert!(result["x"]["unreadable"].is_string(), "{result}");
    let records = rig.history("order=asc").await;
    for data in [&records[0]["data"], &records[1]["data"]["x"]] {
        let why = data["unreadable"].as_str().unwrap();
        assert!(why.contains("nested"), "{why}");
    }
}

#[tokio::test]
async fn what_is_no_record_is_refused_and_still_says_what_it_says_of_its_job() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let id = rig.run("box", json!({"argv": ["echo"]})).await;
    let command = agent.expect(payload::COMMAND).await;
    for (kind, payload, why) in [
        (payload::ACCEPTED, json!({"sequence": 1}), "etime"),
        (
            payload::ACCEPTED,
            json!({"sequence": "1", "etime": 1, "ctime": 1}),
            "is no sequence",
        ),
        (
            payload::RESULT,
            json!({"status": "succeeded", "sequence": 2, "etime": 1}),
            "ctime",
        ),
    ] {
        agent.send(&command.reply(kind, &payload)).await;
        let error = agent.expect(payload::ERROR).await;
        assert_eq!(error.conversation_id, id);
        let error: payload::Error = error.read().unwrap();
        assert_eq!(error.code.as_str(), "invalid");
        assert!(error.message.contains(why), "{}", error.message);
    }
    assert_eq!(rig.ended(&id).await["result"]["status"], "succeeded");
    agent.values(3..=3).await;
    agent.acked(3).await;
    assert_eq!(ids(&rig.history("order=asc").await), [3]);
}

#[tokio::test]
async fn who_names_no_journal_learns_why_its_records_are_refused() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    agent.values(1..=1).await;
    let error: payload::Error = agent.expect(payload::ERROR).await.read().unwrap();
    assert!(error.message.contains("journal.id"), "{}", error.message);
}

#[tokio::test]
async fn a_batch_with_an_impossible_sequence_is_refused_whole() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let record =
        |id: u64| json!({"id": id, "token": "t", "code": 200, "etime": 1, "ctime": 1, "data": id});
    let history = json!({"records": [record(7), record(1 << 63), record(8)], "last": 8});
    agent.send(&Message::with(payload::HISTORY, &history)).await;
    let error = agent.expect(payload::ERROR).await;
    assert!(error.payload.unwrap().contains("is no sequence"));
    assert!(rig.history("order=asc").await.is_empty());
}

/// What was sent in time and did not arrive is not run after its time.
#[tokio::test]
async fn a_sent_job_whose_time_is_over_is_asked_for_and_not_sent_again() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let body = json!({"agents": ["box"], "command": {"argv": ["date"]}, "queue": true, "expiresSeconds": 1});
    let answer: Value = rig.client.post("/jobs", &body).await.unwrap();
    let id = answer["jobs"][0]["id"].as_str().unwrap().to_owned();
    agent.expect(payload::COMMAND).await;
    drop(agent);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let again = agent.expect(payload::COMMAND).await;
    let request: Value = again.read().unwrap();
    assert_eq!(
        (again.id.as_str(), &request["notAfter"]),
        (id.as_str(), &json!(1))
    );
    let expired = json!({"status": "expired"});
    agent.send(&again.reply(payload::RESULT, &expired)).await;
    let ended = rig.ended(&id).await;
    assert_eq!(ended["error"]["code"], "expired");
}

//! One request to many devices: who is meant, how many at a time, when it stops, and what outlives a restart.
#![allow(missing_docs)]

#[path = "batches/command.rs"]
mod command;
mod common;
#[path = "batches/fleet.rs"]
mod fleet;
#[path = "batches/repeated.rs"]
mod repeated;

use common::*;
use fleet::Fleet;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use triton::message::payload;

fn plan(more: &Value) -> Value {
    let mut body = json!({"on": ["*"], "command": {"argv": ["true"]}});
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    body
}

async fn start(rig: &Rig, more: Value) -> String {
    let answer: Value = rig.client.post("/batches", &plan(&more)).await.unwrap();
    answer["batch"]["id"].as_str().unwrap().to_owned()
}

async fn show(rig: &Rig, id: &str) -> Value {
    rig.client.get(&format!("/batches/{id}")).await.unwrap()
}

async fn over(rig: &Rig, id: &str) -> Value {
    eventually("the batch is over", async || {
        let batch = show(rig, id).await;
        (batch["state"] == "ended").then_some(batch)
    })
    .await
}

fn members(batch: &Value, state: &str) -> Vec<String> {
    let all = batch["members"].as_array().unwrap().iter();
    all.filter(|member| member["state"] == state)
        .map(|member| member["instance"].as_str().unwrap().to_owned())
        .collect()
}

/// The lines of a batch's output.
async fn lines(rig: &Rig, id: &str, follow: bool) -> Vec<Value> {
    let path = format!("/batches/{id}/output?follow={follow}");
    let mut lines = rig.client.lines(&path).await.unwrap();
    let mut all = Vec::new();
    while let Some(line) = within(lines.next()).await.unwrap() {
        all.push(serde_json::from_slice(&line).unwrap());
    }
    all
}

/// Most memory that a process has had, in kB.
fn most_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

/// Each of these names stands for all instances: kept once for each name they would be some 300 MB.
#[tokio::test]
async fn a_name_that_is_given_many_times_counts_once() {
    let rig = daemon().await;
    rig.register("gate").await;
    let _fleet = Fleet::of(&rig, 40).await;
    let pid = rig.daemon.as_ref().unwrap().child.id().unwrap();
    let before = most_memory(pid);
    let names = vec!["gate"; 30_000];
    let body = json!({"agents": names, "command": {"argv": ["true"]}, "concurrency": 1});
    let answer: Value = rig.client.post("/batches", &body).await.unwrap();
    assert_eq!(answer["batch"]["total"], 40, "{answer}");
    let grown = most_memory(pid) - before;
    assert!(grown < 50_000, "{grown} kB");
    let names: Vec<_> = (0..=10_000).map(|n| format!("gate/{n}")).collect();
    let body = json!({"agents": names, "command": {"argv": ["true"]}}).to_string();
    let (_, why) = rig.refused("POST", "/batches", body.as_bytes(), 413).await;
    assert!(why.contains("10000 names"), "{why}");
}

#[tokio::test]
async fn selectors_choose_and_say_where_they_are_wrong() {
    let rig = rig().await;
    rig.register("gate").await;
    let fleet = Fleet::of(&rig, 3).await;
    let chosen = async |on: &str| -> Result<usize, String> {
        let answer: Value = rig
            .client
            .get(&format!("/agents?on={on}&brief=true"))
            .await?;
        Ok(answer["agents"].as_array().unwrap().len())
    };
    for (on, number) in [
        ("*", 3),
        ("gate", 3),
        ("os%3DLinux%2Carch%3Dmips", 3),
        ("label.n%3D2", 1),
        ("label.n%3D2&on=label.n%3D1", 2),
        ("attribute.site%3Dattic%2C!label.n%3D0", 2),
        ("state%3Ddown", 0),
        ("gate/i1", 1),
    ] {
        assert_eq!(chosen(on).await, Ok(number), "{on}");
    }
    let e = chosen("gate%2Ccolour%3Dred").await.unwrap_err();
    assert!(e.contains("character 6") && e.contains("colour"), "{e}");
    for more in [
        json!({"on": ["os="]}),
        json!({"on": ["nobody"]}),
        json!({"on": []}),
        json!({"agents": ["nobody"]}),
        json!({"concurrency": 0}),
        json!({"concurrency": 1001}),
        json!({"command": {"argv": []}}),
        json!({"command": {"argv": ["a".repeat(1 << 20)]}}),
        json!({"expiresSeconds": 5}),
        json!({"surprise": true}),
    ] {
        let answer = rig.client.post::<Value>("/batches", &plan(&more)).await;
        assert!(answer.is_err(), "{more}");
    }
    let list: Value = rig.client.get("/batches").await.unwrap();
    assert_eq!(list["batches"], json!([]));
    drop(fleet);
}

#[tokio::test]
async fn no_more_run_at_a_time_than_it_says() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 7).await;
    let id = start(&rig, json!({"concurrency": 3})).await;
    let mut running = BTreeSet::new();
    let mut seen = 0;
    while seen < 7 {
        let (at, command) = fleet.next().await;
        running.insert((at, command.id.clone()));
        seen += 1;
        assert!(running.len() <= 3);
        if running.len() == 3 || seen == 7 {
            // Only an end lets another one begin.
            if seen < 7 {
                fleet.nothing_more(&rig).await;
            }
            while let Some((at, job)) = running.pop_first() {
                fleet.succeed(at, &job).await;
                if seen < 7 {
                    break;
                }
            }
        }
    }
    let batch = over(&rig, &id).await;
    assert_eq!(batch["counts"]["succeeded"], 7);
    assert_eq!(
        (&batch["total"], &batch["stopped"]),
        (&json!(7), &Value::Null)
    );
    let list: Value = rig.client.get("/batches").await.unwrap();
    assert_eq!(list["batches"][0]["counts"]["succeeded"], 7);
}

#[tokio::test]
async fn a_canary_that_fails_keeps_the_rest_from_starting() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 6).await;
    let id = start(&rig, json!({"canary": 2})).await;
    let (a, first) = fleet.next().await;
    let (b, second) = fleet.next().await;
    fleet.nothing_more(&rig).await;
    fleet.succeed(a, &first.id).await;
    fleet.nothing_more(&rig).await;
    fleet.fail(b, &second.id, "no space left").await;
    let batch = over(&rig, &id).await;
    assert_eq!(batch["stopped"], "canary");
    assert_eq!(members(&batch, "not-started").len(), 4);
    let failed = batch["members"].as_array().unwrap().iter();
    let failed = failed
        .filter(|m| m["state"] == "failed")
        .collect::<Vec<_>>();
    assert_eq!(failed.len(), 1);
    assert_eq!(
        (&failed[0]["exitCode"], &failed[0]["lastLine"]),
        (&json!(3), &json!("no space left"))
    );
    fleet.nothing_more(&rig).await;
    // One that sings lets the rest follow.
    let id = start(&rig, json!({"canary": 2})).await;
    for _ in 0..2 {
        let (at, job) = fleet.next().await;
        fleet.succeed(at, &job.id).await;
    }
    for _ in 0..4 {
        let (at, job) = fleet.next().await;
        fleet.succeed(at, &job.id).await;
    }
    assert_eq!(over(&rig, &id).await["counts"]["succeeded"], 6);
}

#[tokio::test]
async fn a_canary_that_dies_is_not_waited_for_for_ever() {
    let rig = rig_with(|s| s.batch_patience = Duration::from_secs(3)).await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 3).await;
    // One that is back in time is waited for.
    let id = start(&rig, json!({"canary": 1})).await;
    let (first, job) = fleet.next().await;
    fleet.accept(first, &job.id).await;
    fleet.leave(first);
    rig.is_down(&format!("gate%2Fi{first}")).await;
    fleet.come(&rig, first).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    fleet.succeed(first, &job.id).await;
    for _ in 0..2 {
        let (at, job) = fleet.next().await;
        fleet.succeed(at, &job.id).await;
    }
    assert_eq!(over(&rig, &id).await["counts"]["succeeded"], 3);
    // One that stays away has failed, and the rest is not asked.
    let id = start(&rig, json!({"canary": 1})).await;
    let (dead, job) = fleet.next().await;
    fleet.accept(dead, &job.id).await;
    fleet.leave(dead);
    let batch = over(&rig, &id).await;
    assert_eq!(batch["stopped"], "canary");
    assert_eq!(members(&batch, "not-started").len(), 2);
    assert_eq!(members(&batch, "failed"), [format!("i{dead}")]);
    let failed = batch["members"].as_array().unwrap().iter();
    let failed = failed.into_iter().find(|m| m["state"] == "failed").unwrap();
    let message = failed["message"].as_str().unwrap();
    assert!(message.contains("went away while its job ran"), "{message}");
    // Its job is told when it is back, in the history and as a job.
    fleet.come(&rig, dead).await;
    fleet.succeed(dead, &job.id).await;
    assert_eq!(rig.ended(&job.id).await["result"]["status"], "succeeded");
}

#[tokio::test]
async fn a_device_that_comes_and_goes_is_not_given_up() {
    const PATIENCE: Duration = Duration::from_secs(8);
    let rig = rig_with(|s| s.batch_patience = PATIENCE).await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 2).await;
    let id = start(&rig, json!({})).await;
    let (first, job) = fleet.next().await;
    let (other, other_job) = fleet.next().await;
    fleet.accept(first, &job.id).await;
    let device = format!("gate%2Fi{first}");
    fleet.leave(first);
    rig.is_down(&device).await;
    // The driver looks at all while the device is down, and again a whole patience later.
    fleet.succeed(other, &other_job.id).await;
    eventually("the other one is done", async || {
        (show(&rig, &id).await["counts"]["succeeded"] == 1).then_some(())
    })
    .await;
    // In between it was there, so that it was never down for so long.
    fleet.come(&rig, first).await;
    tokio::time::sleep(PATIENCE * 5 / 8).await;
    fleet.leave(first);
    rig.is_down(&device).await;
    tokio::time::sleep(PATIENCE / 2).await;
    fleet.come(&rig, first).await;
    assert_eq!(show(&rig, &id).await["counts"]["running"], 1);
    fleet.succeed(first, &job.id).await;
    assert_eq!(over(&rig, &id).await["counts"]["succeeded"], 2);
}

#[tokio::test]
async fn after_so_many_failures_nothing_more_starts_and_what_runs_goes_on() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 8).await;
    let id = start(&rig, json!({"concurrency": 3, "stopOnFailures": 2})).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(fleet.next().await);
    }
    fleet.fail(jobs[0].0, &jobs[0].1.id, "one").await;
    jobs.push(fleet.next().await);
    fleet.fail(jobs[1].0, &jobs[1].1.id, "two").await;
    eventually("it stops", async || {
        (show(&rig, &id).await["stopped"] == "failures").then_some(())
    })
    .await;
    fleet.nothing_more(&rig).await;
    assert_eq!(show(&rig, &id).await["counts"]["running"], 2);
    for (at, job) in &jobs[2..] {
        fleet.succeed(*at, &job.id).await;
    }
    let batch = over(&rig, &id).await;
    let counts = &batch["counts"];
    assert_eq!(
        (
            &counts["failed"],
            &counts["succeeded"],
            &counts["not-started"]
        ),
        (&json!(2), &json!(2), &json!(4))
    );
}

#[tokio::test]
async fn after_a_restart_the_rest_is_done_and_nobody_is_asked_twice() {
    let mut rig = daemon().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 6).await;
    let id = start(&rig, json!({"concurrency": 2})).await;
    let mut ran = Vec::new();
    let (at, job) = fleet.next().await;
    ran.push((at, job.id.clone()));
    fleet.succeed(at, &job.id).await;
    for _ in 0..2 {
        let (at, job) = fleet.next().await;
        fleet.accept(at, &job.id).await;
        ran.push((at, job.id.clone()));
    }
    // Two run, one is done, three wait. What runs has reported that it was accepted.
    rig.kill().await;
    assert_eq!(show(&rig, &id).await["state"], "running");
    fleet.again(&rig).await;
    fleet.nothing_more(&rig).await;
    for (at, job) in &ran[1..] {
        fleet.succeed(*at, job).await;
    }
    for _ in 0..3 {
        let (at, job) = fleet.next().await;
        ran.push((at, job.id.clone()));
        fleet.succeed(at, &job.id).await;
    }
    let batch = over(&rig, &id).await;
    assert_eq!(batch["counts"]["succeeded"], 6, "{batch}");
    fleet.nothing_more(&rig).await;
    let devices: BTreeSet<usize> = ran.iter().map(|(at, _)| *at).collect();
    assert_eq!((ran.len(), devices.len()), (6, 6), "each exactly once");
    // And over another one what was is still known.
    rig.kill().await;
    assert_eq!(show(&rig, &id).await["members"], batch["members"]);
    let told = lines(&rig, &id, true).await;
    assert_eq!(told.last().unwrap()["type"], "summary");
    assert_eq!(
        told.iter().filter(|line| line["type"] == "ended").count(),
        6
    );
}

#[tokio::test]
async fn a_cancel_reaches_what_runs_and_keeps_back_the_rest() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 4).await;
    let id = start(&rig, json!({"concurrency": 2})).await;
    let jobs = [fleet.next().await, fleet.next().await];
    let path = format!("/batches/{id}/cancel");
    rig.client
        .post::<Value>(&path, &json!({"graceSeconds": 2}))
        .await
        .unwrap();
    for _ in 0..2 {
        let (at, cancel) = fleet.next().await;
        assert_eq!(cancel.kind, "cancel");
        let asked: Value = cancel.read().unwrap();
        assert_eq!(asked["graceSeconds"].as_f64(), Some(2.0));
        let job = asked["job"].as_str().unwrap();
        assert!(jobs.iter().any(|(a, j)| *a == at && j.id == job));
        fleet
            .result(at, job, json!({"status": "cancelled", "signal": 15}))
            .await;
    }
    let batch = over(&rig, &id).await;
    assert_eq!(batch["stopped"], "cancelled");
    assert_eq!(members(&batch, "cancelled").len(), 2);
    assert_eq!(members(&batch, "not-started").len(), 2);
    let e = rig
        .client
        .post::<Value>(&path, &json!({}))
        .await
        .unwrap_err();
    assert!(e.contains("is over"), "{e}");
    fleet.nothing_more(&rig).await;
}

#[tokio::test]
async fn who_is_down_has_failed_at_once_or_is_waited_for() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 3).await;
    fleet.leave(1);
    rig.is_down("gate%2Fi1").await;
    // It says nothing of what is asked: neither canary nor limit count it.
    let more = json!({"canary": 2, "stopOnFailures": 1});
    let id = start(&rig, more).await;
    for _ in 0..2 {
        let (at, job) = fleet.next().await;
        assert_ne!(at, 1);
        fleet.succeed(at, &job.id).await;
    }
    let batch = over(&rig, &id).await;
    assert_eq!(members(&batch, "offline"), ["i1"]);
    assert_eq!(batch["stopped"], Value::Null);
    let id = start(&rig, json!({"queue": true, "expiresSeconds": 600})).await;
    for _ in 0..2 {
        let (at, job) = fleet.next().await;
        fleet.succeed(at, &job.id).await;
    }
    eventually("one waits", async || {
        let batch = show(&rig, &id).await;
        (batch["counts"]["succeeded"] == 2 && members(&batch, "waiting") == ["i1"]).then_some(())
    })
    .await;
    fleet.come(&rig, 1).await;
    let (at, job) = fleet.next().await;
    assert_eq!(at, 1);
    fleet.succeed(at, &job.id).await;
    assert_eq!(over(&rig, &id).await["counts"]["succeeded"], 3);
    // In vain.
    fleet.leave(1);
    rig.is_down("gate%2Fi1").await;
    let id = start(
        &rig,
        json!({"on": ["gate/i1"], "queue": true, "expiresSeconds": 1}),
    )
    .await;
    assert_eq!(members(&over(&rig, &id).await, "offline"), ["i1"]);
}

#[tokio::test]
async fn the_lines_of_all_come_in_one_stream_with_their_devices() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 3).await;
    let id = start(&rig, json!({})).await;
    let follow = lines(&rig, &id, true);
    let work = async {
        let mut jobs = Vec::new();
        for _ in 0..3 {
            jobs.push(fleet.next().await);
        }
        for (at, job) in &jobs {
            let text = format!("hello of {at}\n");
            fleet.output(*at, job, &text).await;
        }
        for (at, job) in &jobs {
            let progress = json!({"percent": 50, "message": "half"});
            fleet.agents[*at]
                .as_mut()
                .unwrap()
                .send(&job.reply("progress", &progress))
                .await;
            fleet.succeed(*at, &job.id).await;
        }
    };
    let (told, ()) = tokio::join!(follow, work);
    let count = |kind: &str| told.iter().filter(|line| line["type"] == kind).count();
    assert_eq!(
        [
            count("output"),
            count("progress"),
            count("ended"),
            count("end")
        ],
        [3, 3, 3, 0]
    );
    for line in told.iter().filter(|line| line["type"] == "output") {
        let at = line["instance"].as_str().unwrap().trim_start_matches('i');
        assert_eq!(line["data"], format!("hello of {at}\n"));
        assert_eq!(line["agent"], "gate");
        let job = rig.job(line["job"].as_str().unwrap()).await;
        assert_eq!(job["instance"], line["instance"]);
    }
    let summary = told.last().unwrap();
    assert_eq!(
        (&summary["type"], &summary["batch"]["counts"]["succeeded"]),
        (&json!("summary"), &json!(3))
    );
    // A device's own lines are in their order, and all of it can be read again.
    let again = lines(&rig, &id, false).await;
    let sorted = |lines: &[Value]| {
        let mut lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&again), sorted(&told));
}

#[tokio::test]
async fn a_type_that_an_agent_does_not_know_is_told() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 2).await;
    let body = json!({"on": ["*"], "type": "script", "payload": {"name": "x"}});
    let answer: Value = rig.client.post("/batches", &body).await.unwrap();
    let id = answer["batch"]["id"].as_str().unwrap();
    for _ in 0..2 {
        let (at, request) = fleet.next().await;
        assert_eq!(request.kind, "script");
        let error =
            json!({"code": "unknown-type", "message": "this agent does not know the type script"});
        fleet.agents[at]
            .as_mut()
            .unwrap()
            .send(&request.reply("error", &error))
            .await;
    }
    let batch = over(&rig, id).await;
    let message = batch["members"][0]["message"].as_str().unwrap();
    assert!(
        message.starts_with("unknown-type: this agent does not know"),
        "{message}"
    );
    assert_eq!(batch["counts"]["failed"], 2);
}

#[tokio::test]
async fn a_thousand_devices_are_asked_fifty_at_a_time() {
    const DEVICES: usize = 1000;
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, DEVICES).await;
    let id = start(&rig, json!({})).await;
    let follow = tokio::spawn({
        let client = rig.client.clone();
        let path = format!("/batches/{id}/output?follow=true");
        async move {
            let mut lines = client.lines(&path).await.unwrap();
            let mut ended = 0;
            while let Some(line) = within(lines.next()).await.unwrap() {
                let line: Value = serde_json::from_slice(&line).unwrap();
                ended += usize::from(line["type"] == "ended");
            }
            ended
        }
    });
    let mut asked = BTreeSet::new();
    for n in 0..DEVICES {
        let (at, job) = fleet.next().await;
        assert!(asked.insert(at), "{at} is asked twice");
        fleet.output(at, &job, "done\n").await;
        if n % 10 == 9 {
            fleet.fail(at, &job.id, "no").await;
        } else {
            fleet.succeed(at, &job.id).await;
        }
    }
    let batch = over(&rig, &id).await;
    assert_eq!(
        (&batch["counts"]["succeeded"], &batch["counts"]["failed"]),
        (&json!(900), &json!(100))
    );
    assert_eq!(follow.await.unwrap(), DEVICES);
}

#[tokio::test]
async fn open_batches_are_bounded() {
    let rig = rig().await;
    rig.register("gate").await;
    let fleet = Fleet::of(&rig, 1).await;
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(start(&rig, json!({})).await);
    }
    let e = rig
        .client
        .post::<Value>("/batches", &plan(&json!({})))
        .await
        .unwrap_err();
    assert!(e.contains("too many batches"), "{e}");
    drop(fleet);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_batch_without_a_driver() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 1).await;
    fleet.leave(0);
    rig.is_down("gate%2Fi0").await;
    let token = std::fs::read_to_string(rig.dir.path().join("data/admin-token")).unwrap();
    let body = plan(&json!({})).to_string();
    let request = format!(
        "POST /api/v1/batches HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    let address = rig.url().strip_prefix("http://").unwrap();
    for pause in 0..60_u64 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_micros(pause * 25)).await;
    }
    // Its only device is down, so each is over as soon as somebody drives it.
    eventually("all batches are over", async || {
        let list: Value = rig.client.get("/batches?limit=500").await.unwrap();
        let list = list["batches"].as_array().unwrap();
        (!list.is_empty() && list.iter().all(|batch| batch["state"] == "ended")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_device_that_goes_before_it_gets_its_job_is_no_failure() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 3).await;
    let id = start(&rig, json!({"canary": 1, "stopOnFailures": 1})).await;
    let (gone, job) = fleet.next().await;
    let offline = payload::ErrorCode::Other("offline".to_owned());
    let error = job.reply_error(offline, "it went");
    fleet.agents[gone].as_mut().unwrap().send(&error).await;
    // Another one is the canary, and nothing else runs before it is through.
    let (canary, job) = fleet.next().await;
    assert_ne!(canary, gone);
    fleet.nothing_more(&rig).await;
    fleet.succeed(canary, &job.id).await;
    let (last, job) = fleet.next().await;
    fleet.succeed(last, &job.id).await;
    let batch = over(&rig, &id).await;
    assert_eq!(members(&batch, "offline"), [format!("i{gone}")]);
    assert_eq!(
        (&batch["counts"]["succeeded"], &batch["stopped"]),
        (&json!(2), &Value::Null)
    );
}

#[tokio::test]
async fn who_is_forgotten_is_not_waited_for() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 3).await;
    for at in [1, 2] {
        fleet.leave(at);
        rig.is_down(&format!("gate%2Fi{at}")).await;
    }
    let more = json!({"queue": true, "expiresSeconds": 600, "concurrency": 1});
    let id = start(&rig, more).await;
    // One before its turn, the other while it is waited for.
    let (at, job) = fleet.next().await;
    assert_eq!(at, 0);
    rig.told("DELETE", "/agents/gate%2Fi1", b"", 200).await;
    fleet.succeed(0, &job.id).await;
    eventually("one has ended", async || {
        let batch = show(&rig, &id).await;
        (members(&batch, "offline") == ["i1"]).then_some(())
    })
    .await;
    rig.told("DELETE", "/agents/gate%2Fi2", b"", 200).await;
    let batch = over(&rig, &id).await;
    assert_eq!(members(&batch, "offline"), ["i1", "i2"]);
    assert_eq!(batch["members"][1]["message"], "the device was forgotten");
}

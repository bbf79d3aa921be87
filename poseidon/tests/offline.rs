//! Commands about devices that are away: jobs that wait for them, what they recorded, two with one identity.
//!
//! What the commands ask and print is tested against a server made by the test, the rest against a real one.
#![allow(missing_docs)]

mod common;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use common::*;
use serde_json::{Value, json};
use std::process::Output;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use triton::message::{Message, payload};

/// Answers in order; for each request its method and path with query, and its body.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

struct Stub {
    url: String,
    asked: Asked,
}

impl Stub {
    /// Each answer is told once, the last one for ever. Strings are sent as they are.
    async fn new(answers: Vec<Value>) -> Self {
        let asked = Asked::default();
        let answers = Arc::new(Mutex::new(answers));
        let app = Router::new()
            .fallback(answer)
            .with_state((asked.clone(), answers));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = poseidon(arguments);
        command
            .env("POSEIDON_URL", &self.url)
            .env("POSEIDON_TOKEN", "t");
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        within(self.command(arguments).output()).await.unwrap()
    }
}

async fn answer(
    State((asked, answers)): State<(Asked, Arc<Mutex<Vec<Value>>>)>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let line = format!("{} {}", head.method, head.uri);
    let body = serde_json::from_slice(&body).unwrap_or_default();
    asked.lock().unwrap().push((line, body));
    let mut answers = answers.lock().unwrap();
    let answer = if answers.len() > 1 {
        answers.remove(0)
    } else {
        answers[0].clone()
    };
    match answer {
        Value::String(text) => text.into_response(),
        Value::Null => StatusCode::BAD_GATEWAY.into_response(),
        answer => answer.to_string().into_response(),
    }
}

async fn on(rig: &Rig, arguments: &[&str]) -> Output {
    let output = poseidon(arguments)
        .env("POSEIDON_DATA", rig.dir.path().join("data"))
        .output();
    within(output).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn queued(expires_in: f64) -> Value {
    let now = poseidon::time::now();
    json!({
        "id": "0123", "agent": "gate\u{1b}", "instance": "i1", "state": "queued", "created": now,
        "expires": now + expires_in, "request": {"argv": ["reboot"]}, "result": null, "error": null,
    })
}

#[tokio::test]
async fn without_queue_the_error_says_that_there_is_one() {
    let rig = rig().await;
    rig.register("box").await;
    drop(rig.agent("i1").await);
    let said = eventually("it is down", async || {
        let output = on(&rig, &["run", "box", "--", "true"]).await;
        assert_ne!(output.status.code(), Some(0));
        let said = text(&output.stderr).to_owned();
        said.contains("nothing was started").then_some(said)
    })
    .await;
    assert!(said.contains("--queue"), "{said}");
}

#[tokio::test]
async fn run_queue_says_what_waits_and_follows_it() {
    let job = queued(90_000.0);
    let mut ended = job.clone();
    ended["state"] = json!("ended");
    ended["result"] = json!({"status": "succeeded", "exitCode": 0});
    let stream = format!(
        "{}\n{}\n",
        json!({"type": "output", "stream": "stdout", "offset": 0, "data": "done\n", "encoding": "utf8"}),
        json!({"type": "end", "job": ended})
    );
    let stub = Stub::new(vec![json!({"jobs": [job]}), json!(stream)]).await;
    let arguments = ["run", "gate", "--queue", "--expires", "3d", "--", "reboot"];
    let output = stub.run(&arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), "done\n");
    let said = text(&output.stderr);
    assert!(
        said.starts_with("poseidon: gate\u{FFFD} is down: the job waits until 20")
            && said.contains("Z (24 h)"),
        "{said}"
    );
    let asked = stub.asked();
    assert_eq!(asked[0].1["queue"], true);
    assert_eq!(asked[0].1["expiresSeconds"].as_u64(), Some(259_200));
    assert_eq!(asked[1].0, "GET /api/v1/jobs/0123/output?follow=true");

    let stub = Stub::new(vec![json!({"jobs": [queued(60.0)]})]).await;
    let output = stub
        .run(&["run", "gate", "--queue", "--detach", "--", "reboot"])
        .await;
    assert_eq!(text(&output.stdout), "0123\n");
    assert!(text(&output.stderr).contains("the job waits"), "{output:?}");
    assert_eq!(
        stub.asked()[0].1["expiresSeconds"].as_u64(),
        Some(86_400),
        "a day, unless told otherwise"
    );
    // Whether the server took it is not known: the very same is sent again.
    let stub = Stub::new(vec![
        Value::Null,
        Value::Null,
        json!({"jobs": [queued(60.0)]}),
    ])
    .await;
    let output = stub
        .run(&["run", "gate", "--queue", "--detach", "--", "reboot"])
        .await;
    assert_eq!(text(&output.stdout), "0123\n", "{output:?}");
    assert!(text(&output.stderr).contains("trying again"), "{output:?}");
    let asked = stub.asked();
    assert!(asked[0].1["token"].as_str().unwrap().len() == 32);
    assert!(asked.len() == 3 && asked.iter().all(|each| *each == asked[0]));
    let stub = Stub::new(vec![Value::Null]).await;
    let output = stub
        .run(&["run", "gate", "--patience", "0s", "--", "reboot"])
        .await;
    let asked = stub.asked();
    assert_eq!((output.status.code(), asked.len()), (Some(1), 1));
    let token = asked[0].1["token"].as_str().unwrap();
    let tells = format!("whether it was started, 'poseidon job {token}' tells");
    assert!(text(&output.stderr).contains(&tells), "{output:?}");
    for wrong in [
        &["run", "gate", "--expires", "1h", "--", "true"][..],
        &["run", "gate", "--queue", "--expires", "1y", "--", "true"],
    ] {
        assert_eq!(stub.run(wrong).await.status.code(), Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn jobs_that_wait_are_listed_with_their_expiry() {
    let stub = Stub::new(vec![json!({"jobs": [queued(7300.0)]})]).await;
    let output = stub
        .run(&["jobs", "--state", "queued", "--agent", "gate/i1"])
        .await;
    let said = text(&output.stdout);
    assert!(said.contains("queued, expires in 2 h"), "{output:?}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
    assert_eq!(
        stub.asked()[0].0,
        "GET /api/v1/jobs?limit=50&agent=gate%2Fi1&state=queued"
    );
}

fn record(row: u64) -> Value {
    json!({
        "row": row, "agent": "gate", "instance": "0123456789", "id": row * 10, "token": "t", "code": 200,
        "etime": 1_700_000_000, "ctime": 1_700_000_000, "received": 1_700_000_000, "data": {"n": row},
    })
}

#[tokio::test]
async fn history_asks_for_what_was_said_and_goes_on_behind_it() {
    let page = |rows: &[u64], more: bool| {
        let records: Vec<_> = rows.iter().map(|row| record(*row)).collect();
        json!({"records": records, "more": more})
    };
    let stub = Stub::new(vec![
        page(&[3, 2, 1], true),
        page(&[4, 5], true),
        // The server goes away for a moment, and tells too much when it is back.
        Value::Null,
        page(&[5, 6], false),
    ])
    .await;
    let arguments = [
        "history",
        "gate/01",
        "--token",
        "a b",
        "--code",
        "ok",
        "--since",
        "2023-11-14T22:13:20Z",
        "--limit",
        "3",
        "--follow",
    ];
    let mut child = stub.command(&arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for row in 1..=6 {
        let line = within(lines.next_line()).await.unwrap().unwrap();
        let wanted =
            format!("gate/01234567  {row}0  2023-11-14T22:13:20Z  value 200  t  {{\"n\":{row}}}");
        assert_eq!(line, wanted);
    }
    let filter = "&agent=gate%2F01&token=a%20b&code=1&etime=1700000000";
    let asked = stub.asked();
    for (n, wanted) in [
        "limit=3&order=desc",
        "limit=500&after=3",
        "limit=500&after=5",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(asked[n].0, format!("GET /api/v1/history?{wanted}{filter}"));
    }

    let stub = Stub::new(vec![page(&[2, 1], true)]).await;
    let output = stub.run(&["history", "--json", "--limit", "2"]).await;
    let rows: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows, [record(1), record(2)]);
    assert!(text(&output.stderr).contains("more than --limit 2"));
    assert_eq!(stub.asked()[0].0, "GET /api/v1/history?limit=2&order=desc");

    // From a record on they come oldest first.
    let stub = Stub::new(vec![page(&[2, 3], true)]).await;
    let arguments = [
        "history", "gate/01", "--json", "--id", "10", "--etime", "7", "--ctime", "8", "--limit",
        "2",
    ];
    let output = stub.run(&arguments).await;
    let rows: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows, [record(2), record(3)]);
    assert!(text(&output.stderr).contains("newer records are not shown"));
    assert_eq!(
        stub.asked()[0].0,
        "GET /api/v1/history?limit=2&agent=gate%2F01&etime=7&ctime=8&id=10"
    );
    let nobody = stub.run(&["history", "--id", "10"]).await;
    assert_eq!(nobody.status.code(), Some(2));
}

#[tokio::test]
async fn two_devices_with_one_identity_are_told_with_what_to_do() {
    let now = poseidon::time::now();
    let agent = json!({
        "name": "gate", "instance": "0123", "state": "up", "since": now, "lastSeen": now,
        "address": "192.0.2.1:5000", "hello": {"hostname": "one"},
        "collision": {"address": "192.0.2.2:6000", "hostname": "two\u{1b}[2J", "since": now - 300.0, "last": now - 30.0},
    });
    for (arguments, answer) in [
        (&["agents"][..], json!({"agents": [agent]})),
        (&["show", "gate"], agent.clone()),
    ] {
        let stub = Stub::new(vec![answer]).await;
        let output = stub.run(arguments).await;
        let said = text(&output.stdout);
        for part in [
            "192.0.2.1:5000 (host one)",
            "192.0.2.2:6000 (host two\u{FFFD}[2J)",
            "first seen 5 min ago",
            "remove the file `instance`",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

/// As an agent with a journal says it.
async fn hello(rig: &Rig) -> Agent {
    let connected = Agent::connect(rig.url(), Some(IDENTIFIER), "/triton").await;
    let mut agent = connected.unwrap();
    let hello = json!({
        "agent": {"version": "0.1.0", "protocol": 1}, "instance": "i1", "hostname": "box", "os": "Linux",
        "kernel": "6.1", "arch": "mips", "time": 1.0, "capabilities": ["command", "history.get"], "plugins": [],
        "journal": {"id": "j1", "state": "disk", "first": 1, "last": 1}, "run": "r1",
    });
    agent.send(&Message::with(payload::HELLO, &hello)).await;
    agent.expect(payload::WELCOME).await;
    agent
}

#[tokio::test]
async fn a_job_waits_until_its_device_is_back() {
    let rig = rig().await;
    rig.register("box").await;
    drop(hello(&rig).await);
    eventually("it is down", async || {
        (rig.show("box").await["state"] == "down").then_some(())
    })
    .await;
    let mut child = poseidon(&["run", "box", "--queue", "--", "true"])
        .env("POSEIDON_DATA", rig.dir.path().join("data"))
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = within(said.next_line()).await.unwrap().unwrap();
    assert!(
        first.contains("box is down: the job waits until"),
        "{first}"
    );
    let jobs = on(&rig, &["jobs", "--state", "queued"]).await;
    assert!(
        text(&jobs.stdout).contains("queued, expires in 23 h"),
        "{jobs:?}"
    );
    let none = on(&rig, &["jobs", "--state", "ended"]).await;
    assert!(!text(&none.stdout).contains("box"), "{none:?}");
    let mut agent = hello(&rig).await;
    let command = agent.expect(payload::COMMAND).await;
    agent.output(&command, 0, b"done\n").await;
    agent.succeed(&command, 5).await;
    let output = within(child.wait_with_output()).await.unwrap();
    assert_eq!(
        (text(&output.stdout), output.status.code()),
        ("done\n", Some(0))
    );
}

#[tokio::test]
async fn a_job_that_waits_is_cancelled_and_never_sent() {
    let rig = rig().await;
    rig.register("box").await;
    drop(hello(&rig).await);
    eventually("it is down", async || {
        (rig.show("box").await["state"] == "down").then_some(())
    })
    .await;
    let mut child = poseidon(&["run", "box", "--queue", "--", "true"])
        .env("POSEIDON_DATA", rig.dir.path().join("data"))
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    within(said.next_line()).await.unwrap().unwrap();
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = within(child.wait()).await.unwrap();
    assert_ne!(status.code(), Some(0));
    let jobs = on(&rig, &["jobs", "--state", "ended"]).await;
    assert!(text(&jobs.stdout).contains("cancelled"), "{jobs:?}");
}

#[tokio::test]
async fn history_goes_on_when_the_server_is_restarted() {
    let mut rig = rig().await;
    rig.register("box").await;
    let history = |id: u64| {
        let record = json!({"id": id, "token": "t", "code": 200, "etime": 1_700_000_000.0 + id as f64,
            "ctime": 1_700_000_000.0, "data": {"n": id}});
        Message::with("history", &json!({"records": [record], "last": id}))
    };
    let mut agent = hello(&rig).await;
    agent.send(&history(1)).await;
    agent.expect("ack").await;
    let mut child = poseidon(&["history", "box", "--follow", "--since", "1700000001"])
        .env("POSEIDON_DATA", rig.dir.path().join("data"))
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for id in 1..4 {
        let line = within(lines.next_line()).await.unwrap().unwrap();
        assert!(
            line.ends_with(&format!("value 200  t  {{\"n\":{id}}}")),
            "{line}"
        );
        drop(agent);
        rig.restart().await;
        agent = hello(&rig).await;
        // The last one again, as after a lost acknowledgement, and the next.
        agent.send(&history(id)).await;
        agent.send(&history(id + 1)).await;
    }
    child.start_kill().unwrap();
    let output = on(&rig, &["history", "box", "--limit", "2"]).await;
    assert_eq!(text(&output.stdout).lines().count(), 2, "{output:?}");
}

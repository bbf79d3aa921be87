//! Commands that go on watching while the server is restarted, killed or cut off.
#![allow(missing_docs)]

mod common;
#[path = "watch/lost.rs"]
mod lost;

use common::*;
use poseidon::cli::client::Client;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use triton::message::Message;
use triton::message::payload;
use triton::message::text::Data;

fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = poseidon(arguments);
    command.env("POSEIDON_DATA", data);
    command
}

/// A running command whose output is read line by line.
struct Watcher {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watcher {
    fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut child = command(data, arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        within(self.lines.next_line())
            .await
            .unwrap()
            .expect("a line")
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The rest of its lines, its exit code and what it said.
    async fn end(mut self) -> (Vec<String>, Option<i32>, String) {
        let mut rest = Vec::new();
        while let Some(line) = within(self.lines.next_line()).await.unwrap() {
            rest.push(line);
        }
        let output = within(self.child.wait_with_output()).await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (rest, output.status.code(), said)
    }
}

fn data(rig: &Rig) -> std::path::PathBuf {
    rig.dir.path().join("data")
}

async fn accept(agent: &mut Agent) -> Message {
    let command = agent.expect(payload::COMMAND).await;
    agent
        .send(&command.reply(payload::ACCEPTED, &json!({})))
        .await;
    command
}

#[tokio::test]
async fn a_run_goes_on_when_the_server_is_restarted() {
    let mut rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    // The data folder tells the new address.
    let mut watcher = Watcher::start(&data(&rig), &["run", "box", "--", "long"]);
    let job = accept(&mut agent).await;
    agent.output(&job, 0, b"one\n").await;
    assert_eq!(watcher.line().await, "one");
    for (offset, line) in [(4, "two"), (8, "six")] {
        drop(agent);
        rig.restart().await;
        agent = rig.agent("i1").await;
        agent
            .output(&job, offset, format!("{line}\n").as_bytes())
            .await;
        assert_eq!(watcher.line().await, line);
    }
    let result = json!({"status": "failed", "exitCode": 7, "stdoutBytes": 12});
    agent.send(&job.reply("result", &result)).await;
    let (rest, code, said) = watcher.end().await;
    assert_eq!((rest, code), (vec![], Some(7)), "{said}");
    assert!(said.contains("the server is back"), "{said}");
}

#[tokio::test]
async fn devices_side_by_side_lose_no_line_either() {
    let mut rig = rig().await;
    rig.register("box").await;
    let mut agents = vec![rig.agent("aaa").await, rig.agent("bbb").await];
    let mut watcher = Watcher::start(&data(&rig), &["run", "box", "--", "long"]);
    let mut jobs = Vec::new();
    for agent in &mut agents {
        let job = accept(agent).await;
        // The second line is not whole when the server goes.
        agent.output(&job, 0, b"one\ntw").await;
        jobs.push(job);
    }
    let mut lines = vec![watcher.line().await, watcher.line().await];
    agents.clear();
    rig.restart().await;
    for (instance, job) in ["aaa", "bbb"].into_iter().zip(&jobs) {
        let mut agent = rig.agent(instance).await;
        agent.output(job, 6, b"o\n").await;
        agent.succeed(job, 8).await;
        agents.push(agent);
    }
    let (rest, code, said) = watcher.end().await;
    lines.extend(rest);
    lines.sort_unstable();
    let wanted = [
        "box/aaa: one",
        "box/aaa: two",
        "box/bbb: one",
        "box/bbb: two",
    ];
    assert_eq!(lines, wanted, "{said}");
    assert_eq!(code, Some(0));
}

/// `poseidon serve` as a process, to be killed.
struct Served {
    child: Child,
    url: String,
}

impl Served {
    async fn start(data: &Path, listen: &str) -> Self {
        let mut child = command(data, &["serve", "--listen", listen])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = within(lines.next_line()).await.unwrap().unwrap();
        let url = first.split(' ').next_back().unwrap().to_owned();
        Self { child, url }
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    async fn kill(mut self) -> String {
        self.child.start_kill().unwrap();
        within(self.child.wait()).await.unwrap();
        self.address().to_owned()
    }

    async fn agent(&self) -> Agent {
        let connected = Agent::connect(&self.url, Some(IDENTIFIER), "/triton").await;
        let mut agent = connected.unwrap();
        agent.hello("i1").await;
        agent
    }
}

#[tokio::test]
async fn output_goes_on_when_the_server_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("data");
    let mut server = Served::start(&folder, "127.0.0.1:0").await;
    let token = std::fs::read_to_string(folder.join("admin-token")).unwrap();
    let client = Client::new(&server.url, token.trim().to_owned(), None).unwrap();
    let body = json!({"identifier": IDENTIFIER, "name": "box"});
    let _: Value = client.post("/identifiers", &body).await.unwrap();
    let mut agent = server.agent().await;
    let body = json!({"agents": ["box"], "command": {"argv": ["long"]}});
    let answer: Value = client.post("/jobs", &body).await.unwrap();
    let id = answer["jobs"][0]["id"].as_str().unwrap();
    let job = accept(&mut agent).await;
    agent.output(&job, 0, b"line 0\n").await;
    // One knows the address, the other only the data folder.
    let mut text = Watcher::start(&folder, &["--url", &server.url, "output", "--follow", id]);
    let mut lines = Watcher::start(&folder, &["output", "-f", "--json", id]);
    for n in 1..6_u64 {
        assert_eq!(text.line().await, format!("line {}", n - 1));
        let line: Value = serde_json::from_str(&lines.line().await).unwrap();
        assert_eq!(
            (&line["offset"], &line["type"]),
            (&json!((n - 1) * 7), &json!("output"))
        );
        drop(agent);
        let address = server.kill().await;
        server = Served::start(&folder, &address).await;
        agent = server.agent().await;
        agent
            .output(&job, n * 7, format!("line {n}\n").as_bytes())
            .await;
    }
    agent.succeed(&job, 42).await;
    let (rest, code, said) = text.end().await;
    assert_eq!((rest, code), (vec!["line 5".to_owned()], Some(0)), "{said}");
    let (rest, code, said) = lines.end().await;
    let rest: Vec<Value> = rest
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        (&rest[0]["data"], &rest[1]["type"], rest.len()),
        (&json!("line 5\n"), &json!("end"), 2)
    );
    server.kill().await;
}

/// Answers each request with a stream that is cut after the next of `cuts` bytes; the last one is whole.
async fn cutter(stream: Vec<u8>, cuts: Vec<usize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for cut in cuts.into_iter().chain([stream.len()]) {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut buffer = [0; 1024];
                let n = socket.read(&mut buffer).await.unwrap();
                assert!(n > 0, "a request");
                request.extend_from_slice(&buffer[..n]);
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                stream.len()
            );
            socket.write_all(head.as_bytes()).await.unwrap();
            socket.write_all(&stream[..cut]).await.unwrap();
            socket.shutdown().await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_stream_that_is_cut_anywhere_comes_out_whole() {
    let mut stream = String::new();
    let mut wanted = Vec::new();
    for n in 0..12_u8 {
        let piece = [b'a' + n, 0xff, b'\n'];
        let Data { data, encoding } = Data::from_bytes(&piece);
        let line = json!({"type": "output", "stream": "stdout", "offset": wanted.len(), "data": data, "encoding": encoding});
        let _ = writeln!(stream, "{line}\n");
        wanted.extend_from_slice(&piece);
    }
    let job = json!({"id": "t", "state": "ended", "result": {"status": "failed", "exitCode": 3}});
    let _ = writeln!(stream, "{}", json!({"type": "end", "job": job}));
    let last = stream.len() - 1;
    let cuts = vec![0, 1, 70, 71, 300, 5, 700, 900, 901, last];
    let address = cutter(stream.into_bytes(), cuts).await;
    let dir = tempfile::tempdir().unwrap();
    let url = format!("http://{address}");
    let output = command(dir.path(), &["--url", &url, "output", "--follow", "t"])
        .env("POSEIDON_TOKEN", "t")
        .output();
    let output = within(output).await.unwrap();
    assert_eq!(output.stdout, wanted, "{output:?}");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[tokio::test]
async fn patience_has_an_end_and_the_job_is_named() {
    let mut rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let arguments = ["run", "box", "--patience", "1s", "--", "long"];
    let mut watcher = Watcher::start(&data(&rig), &arguments);
    let job = accept(&mut agent).await;
    agent.output(&job, 0, b"one\n").await;
    assert_eq!(watcher.line().await, "one");
    rig.server.take().unwrap().stop().await;
    let (rest, code, said) = watcher.end().await;
    assert_eq!((rest, code), (vec![], Some(1)));
    assert!(
        said.contains("trying again for 1 s") && said.contains("may still run"),
        "{said}"
    );
    assert!(said.contains(&job.id), "{said}");
    // A server that was never there is told at once.
    let output = command(&data(&rig), &["output", "--follow", "t"]).output();
    let output = within(output).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("Does the server run?") && !said.contains("again"),
        "{said}"
    );
}

#[tokio::test]
async fn ctrl_c_cancels_also_what_a_server_that_is_away_runs() {
    let mut rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let mut watcher = Watcher::start(&data(&rig), &["run", "box", "--", "long"]);
    let job = accept(&mut agent).await;
    agent.output(&job, 0, b"one\n").await;
    assert_eq!(watcher.line().await, "one");
    drop(agent);
    rig.server.take().unwrap().stop().await;
    watcher.signal(rustix::process::Signal::INT);
    let mut said = BufReader::new(watcher.child.stderr.take().unwrap()).lines();
    loop {
        let line = within(said.next_line()).await.unwrap().expect("more");
        if line.contains("cancelling") {
            break;
        }
    }
    // The device is there when the cancel comes again.
    let server = poseidon::server::start(settings(rig.dir.path()));
    rig.server = Some(server.await.unwrap());
    let mut agent = rig.agent("i1").await;
    loop {
        let message = agent.next().await.expect("a cancel");
        if message.kind == payload::CANCEL {
            break;
        }
    }
    let result = json!({"status": "cancelled", "signal": 15});
    agent.send(&job.reply("result", &result)).await;
    let (_, code, _) = watcher.end().await;
    assert_eq!(code, Some(130));
}

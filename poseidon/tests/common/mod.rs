//! A server in this process, a client for its API, and a simulated agent.
#![allow(dead_code, missing_docs)]

use futures_util::{SinkExt as _, StreamExt as _};
use poseidon::cli::client::Client;
use poseidon::server::{self, Server, Settings};
use serde_json::{Value, json};
use std::future::Future;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use triton::message::{DEFAULT_LIMIT, Message, payload};

pub const IDENTIFIER: &str = "an-identifier-of-a-good-length";
const DEADLINE: Duration = Duration::from_secs(20);

/// The command, which ends with its test.
pub fn poseidon(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poseidon"));
    command
        .args(arguments)
        .env_remove("POSEIDON_URL")
        .env_remove("POSEIDON_TOKEN")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// File with what such processes say.
const LOG: &str = "poseidon.log";

/// `poseidon serve` as a process.
pub struct Daemon {
    pub url: String,
    pub child: Child,
    /// More arguments of `serve`.
    more: Vec<String>,
}

impl Daemon {
    async fn start(dir: &Path, more: Vec<String>) -> (Self, Client) {
        let data = dir.join("data");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join(LOG))
            .unwrap();
        let mut child = poseidon(&["serve", "--listen", "127.0.0.1:0"])
            .args(&more)
            .env("POSEIDON_DATA", &data)
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The second line comes when it listens and its files are there.
        let line = within(lines.next_line()).await.unwrap().unwrap();
        let url = line.split_whitespace().last().unwrap().to_owned();
        let token = std::fs::read_to_string(data.join("admin-token")).unwrap();
        let client = Client::new(&url, token.trim().to_owned(), None).unwrap();
        (Self { url, child, more }, client)
    }
}

/// A server that is a process of its own and can be killed.
pub async fn daemon() -> Rig {
    daemon_with(&[]).await
}

/// The same, with more arguments of `serve`.
pub async fn daemon_with(more: &[&str]) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let more = more.iter().map(|word| (*word).to_owned()).collect();
    let (daemon, client) = Daemon::start(dir.path(), more).await;
    Rig {
        server: None,
        daemon: Some(daemon),
        client,
        dir,
    }
}

pub struct Rig {
    pub server: Option<Server>,
    pub daemon: Option<Daemon>,
    pub client: Client,
    pub dir: tempfile::TempDir,
}

pub async fn rig() -> Rig {
    rig_with(|_| {}).await
}

pub async fn rig_with(change: impl FnOnce(&mut Settings)) -> Rig {
    rig_in(tempfile::tempdir().unwrap(), change).await
}

pub async fn rig_in(dir: tempfile::TempDir, change: impl FnOnce(&mut Settings)) -> Rig {
    let mut settings = settings(dir.path());
    change(&mut settings);
    let server = server::start(settings).await.unwrap();
    let client = client(&server, dir.path());
    Rig {
        server: Some(server),
        daemon: None,
        client,
        dir,
    }
}

pub fn settings(dir: &Path) -> Settings {
    Settings {
        listen: "127.0.0.1:0".to_owned(),
        ..Settings::new(dir.join("data"))
    }
}

fn client(server: &Server, dir: &Path) -> Client {
    let token = std::fs::read_to_string(dir.join("data/admin-token")).unwrap();
    Client::new(&server.url, token.trim().to_owned(), None).unwrap()
}

impl Rig {
    pub fn url(&self) -> &str {
        match &self.daemon {
            Some(daemon) => &daemon.url,
            None => &self.server.as_ref().unwrap().url,
        }
    }

    /// Kills the server, which is a process, and starts another on its folder.
    pub async fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.child.kill().await.unwrap();
        let (daemon, client) = Daemon::start(self.dir.path(), daemon.more).await;
        self.client = client;
        self.daemon = Some(daemon);
    }

    /// What the server, which is a process, has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(LOG)).unwrap()
    }

    pub async fn restart(&mut self) {
        self.server.take().unwrap().stop().await;
        let server = server::start(settings(self.dir.path())).await.unwrap();
        self.client = client(&server, self.dir.path());
        self.server = Some(server);
    }

    pub async fn register(&self, name: &str) {
        let body = json!({"identifier": IDENTIFIER, "name": name, "attributes": {"site": "attic"}});
        self.client
            .post::<Value>("/identifiers", &body)
            .await
            .unwrap();
    }

    /// Connects an agent with the journal `id`; also the last sequence that it is told to be stored.
    pub async fn journaled(&self, instance: &str, id: &str) -> (Agent, u64) {
        let mut agent = Agent::connect(self.url(), Some(IDENTIFIER), "/triton")
            .await
            .unwrap();
        let welcome = agent.hello_with(instance, journal(id)).await;
        (agent, welcome.acked.expect("acked"))
    }

    /// Connects an agent that is registered, and says hello.
    pub async fn agent(&self, instance: &str) -> Agent {
        let mut agent = Agent::connect(self.url(), Some(IDENTIFIER), "/triton")
            .await
            .unwrap();
        agent.hello(instance).await;
        agent
    }

    /// A call by hand: status and body.
    pub async fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let length = format!("content-length: {}\r\n", body.len());
        self.ask_with(method, path, &length, body).await
    }

    /// The same, with the head's lines as they are given.
    pub async fn ask_with(
        &self,
        method: &str,
        path: &str,
        head: &str,
        body: &[u8],
    ) -> (u16, Vec<u8>) {
        let token = std::fs::read_to_string(self.dir.path().join("data/admin-token")).unwrap();
        let address = self.url().strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n{head}\r\n",
            token.trim()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may answer, and close, before it has read all of it.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = within(stream.read_to_end(&mut answer)).await;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
        let end = end.expect("a head");
        let status = std::str::from_utf8(&answer[9..12]).unwrap();
        (status.parse().unwrap(), answer.split_off(end + 4))
    }

    /// A call that is answered with JSON; the status is expected.
    pub async fn told(&self, method: &str, path: &str, body: &[u8], expected: u16) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(status, expected, "{method} {path}: {text}");
        serde_json::from_slice(&answer).expect("JSON")
    }

    /// The code and the text of an error.
    pub async fn refused(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        expected: u16,
    ) -> (String, String) {
        let answer = self.told(method, path, body, expected).await;
        let field = |name: &str| answer["error"][name].as_str().unwrap().to_owned();
        (field("code"), field("message"))
    }

    pub async fn run(&self, name: &str, command: Value) -> String {
        let body = json!({"agents": [name], "command": command});
        let answer: Value = self.client.post("/jobs", &body).await.unwrap();
        answer["jobs"][0]["id"].as_str().unwrap().to_owned()
    }

    /// A job that may wait.
    pub async fn queue(&self, name: &str, command: Value) -> Value {
        let body = json!({"agents": [name], "command": command, "queue": true});
        let answer: Value = self.client.post("/jobs", &body).await.unwrap();
        answer["jobs"][0].clone()
    }

    pub async fn is_down(&self, name: &str) {
        eventually("down", async || {
            (self.show(name).await["state"] == "down").then_some(())
        })
        .await;
    }

    pub async fn state(&self, id: &str, state: &str) {
        eventually(state, async || {
            (self.job(id).await["state"] == state).then_some(())
        })
        .await;
    }

    /// The records that a query finds.
    pub async fn history(&self, query: &str) -> Vec<Value> {
        let path = format!("/history?{query}");
        let answer: Value = self.client.get(&path).await.unwrap();
        answer["records"].as_array().unwrap().clone()
    }

    pub async fn job(&self, id: &str) -> Value {
        self.client.get(&format!("/jobs/{id}")).await.unwrap()
    }

    pub async fn ended(&self, id: &str) -> Value {
        eventually("the job ends", async || {
            let job = self.job(id).await;
            (job["state"] == "ended").then_some(job)
        })
        .await
    }

    pub async fn show(&self, name: &str) -> Value {
        self.client.get(&format!("/agents/{name}")).await.unwrap()
    }

    /// All lines of a job's output.
    pub async fn output(&self, id: &str, follow: bool) -> Vec<Value> {
        let path = format!("/jobs/{id}/output?follow={follow}");
        let mut lines = self.client.lines(&path).await.unwrap();
        let mut all = Vec::new();
        while let Some(line) = within(lines.next()).await.unwrap() {
            all.push(serde_json::from_slice(&line).unwrap());
        }
        all
    }
}

/// The part of a hello that tells of a journal.
pub fn journal(id: &str) -> Value {
    json!({"journal": {"id": id, "state": "disk", "first": 1, "last": 1000}})
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("in time")
}

pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub struct Agent {
    pub socket: WebSocketStream<TcpStream>,
}

impl Agent {
    /// Connects; the error is status, body and Retry-After.
    pub async fn connect(
        url: &str,
        identifier: Option<&str>,
        path: &str,
    ) -> Result<Self, (u16, String, Option<String>)> {
        let address = url.strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let mut request = format!("ws://{address}{path}")
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert("user-agent", "triton/0.1.0".parse().unwrap());
        if let Some(identifier) = identifier {
            let value = format!("Bearer {identifier}").parse().unwrap();
            headers.insert("authorization", value);
        }
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                let retry = response.headers().get("retry-after");
                Err((
                    response.status().as_u16(),
                    String::from_utf8(body).unwrap(),
                    retry.map(|v| v.to_str().unwrap().to_owned()),
                ))
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// Connects as `i1` with a journal, where the server answers.
    pub async fn try_connect(url: &str, identifier: &str) -> Option<Self> {
        let address = url.strip_prefix("http://")?;
        let stream = TcpStream::connect(address).await.ok()?;
        let mut request = format!("ws://{address}/triton")
            .into_client_request()
            .ok()?;
        let value = format!("Bearer {identifier}").parse().ok()?;
        request.headers_mut().insert("authorization", value);
        let (socket, _) = tokio_tungstenite::client_async(request, stream)
            .await
            .ok()?;
        let mut agent = Self { socket };
        agent.say_hello("i1", journal("j1")).await;
        loop {
            if agent.try_next().await?.kind == payload::WELCOME {
                return Some(agent);
            }
        }
    }

    /// The next message, whenever it comes; `None` when the connection is over.
    pub async fn try_next(&mut self) -> Option<Message> {
        loop {
            match self.socket.next().await? {
                Ok(Frame::Text(text)) => {
                    return Some(Message::decode(text.as_bytes(), DEFAULT_LIMIT).unwrap());
                }
                Ok(Frame::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub async fn hello(&mut self, instance: &str) -> payload::Welcome {
        self.hello_with(instance, json!({})).await
    }

    /// `more` is added to the fields of the hello.
    pub async fn hello_with(&mut self, instance: &str, more: Value) -> payload::Welcome {
        self.say_hello(instance, more).await;
        let welcome = self.expect(payload::WELCOME).await;
        welcome.read().unwrap()
    }

    pub async fn say_hello(&mut self, instance: &str, more: Value) {
        let mut hello = json!({
            "agent": {"version": "0.1.0", "protocol": 1}, "instance": instance, "hostname": "box",
            "os": "Linux", "kernel": "6.1", "arch": "mips", "time": 1.0, "capabilities": ["command"],
            "plugins": [], "future": true,
        });
        let more = more.as_object().unwrap().clone();
        hello.as_object_mut().unwrap().extend(more);
        self.send(&Message::with(payload::HELLO, &hello)).await;
    }

    /// Sends a step of a job as a record of the journal.
    pub async fn record(&mut self, token: &str, kind: &str, sequence: u64, payload: Value) {
        let mut payload = payload;
        payload["sequence"] = sequence.into();
        payload["etime"] = (1000.0 + sequence as f64).into();
        payload["ctime"] = (2000.0 + sequence as f64).into();
        self.send(&Message::within(token, kind, &payload)).await;
    }

    /// Sends stored values, with their sequences.
    pub async fn values(&mut self, sequences: std::ops::RangeInclusive<u64>) {
        let last = *sequences.end();
        let record = |id: u64| {
            let (etime, ctime) = (1000.0 + id as f64, 2000.0 + id as f64);
            json!({"id": id, "token": "sensor", "code": 200, "etime": etime, "ctime": ctime, "data": {"n": id}})
        };
        let records: Vec<_> = sequences.map(record).collect();
        let history = json!({"records": records, "last": last});
        self.send(&Message::with(payload::HISTORY, &history)).await;
    }

    /// Waits until everything up to `through` is acknowledged; what else comes is not expected.
    pub async fn acked(&mut self, through: u64) {
        loop {
            let ack: payload::Ack = self.expect(payload::ACK).await.read().unwrap();
            assert!(ack.through <= through, "{ack:?}");
            if ack.through == through {
                return;
            }
        }
    }

    /// Whatever was sent before has been handled, and nothing was answered.
    pub async fn nothing_came(&mut self) {
        self.send(&Message::new("dance")).await;
        let error: payload::Error = self.expect(payload::ERROR).await.read().unwrap();
        assert_eq!(error.code.as_str(), "unknown-type");
    }

    pub async fn send(&mut self, message: &Message) {
        self.text(message.encode().unwrap()).await;
    }

    /// Where the server may be gone: reading tells that too.
    pub async fn try_send(&mut self, message: &Message) {
        let text = message.encode().unwrap();
        let _ = self.socket.send(Frame::text(text)).await;
    }

    pub async fn text(&mut self, text: String) {
        self.socket.send(Frame::text(text)).await.unwrap();
    }

    /// The next message; `None` when the connection is closed.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            match within(self.socket.next()).await? {
                Ok(Frame::Text(text)) => {
                    return Some(Message::decode(text.as_bytes(), DEFAULT_LIMIT).unwrap());
                }
                Ok(Frame::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub async fn expect(&mut self, kind: &str) -> Message {
        let message = self.next().await.expect("a message");
        assert_eq!(message.kind, kind, "{message:?}");
        message
    }

    pub async fn output(&mut self, command: &Message, offset: u64, bytes: &[u8]) {
        let output = payload::Output::new(payload::Stream::Stdout, offset, bytes);
        self.send(&command.reply(payload::OUTPUT, &output)).await;
    }

    pub async fn succeed(&mut self, command: &Message, stdout: u64) {
        let result = json!({"status": "succeeded", "exitCode": 0, "stdoutBytes": stdout});
        self.send(&command.reply(payload::RESULT, &result)).await;
    }
}

/// A route's path, where what its placeholders stand for is not there.
pub fn nowhere(route: &str) -> String {
    let steps = route.split('/');
    let steps = steps.map(|step| {
        if step.starts_with('{') {
            "nothing"
        } else {
            step
        }
    });
    steps.collect::<Vec<_>>().join("/")
}

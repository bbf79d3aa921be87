//! A server in this process, a client for its API, and a simulated agent.
#![allow(dead_code, missing_docs)]

use futures_util::{SinkExt as _, StreamExt as _};
use poseidon::cli::client::Client;
use poseidon::server::{self, Server, Settings};
use serde_json::{Value, json};
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use triton::message::{DEFAULT_LIMIT, Message, payload};

pub const IDENTIFIER: &str = "an-identifier-of-a-good-length";
const DEADLINE: Duration = Duration::from_secs(20);

pub struct Rig {
    pub server: Option<Server>,
    pub client: Client,
    pub dir: tempfile::TempDir,
}

pub async fn rig() -> Rig {
    rig_with(|_| {}).await
}

pub async fn rig_with(change: impl FnOnce(&mut Settings)) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    change(&mut settings);
    let server = server::start(settings).await.unwrap();
    let client = client(&server, dir.path());
    Rig {
        server: Some(server),
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
        &self.server.as_ref().unwrap().url
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

    /// Connects an agent that is registered, and says hello.
    pub async fn agent(&self, instance: &str) -> Agent {
        let mut agent = Agent::connect(self.url(), Some(IDENTIFIER), "/triton")
            .await
            .unwrap();
        agent.hello(instance).await;
        agent
    }

    pub async fn run(&self, name: &str, command: Value) -> String {
        let body = json!({"agents": [name], "command": command});
        let answer: Value = self.client.post("/jobs", &body).await.unwrap();
        answer["jobs"][0]["id"].as_str().unwrap().to_owned()
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

    pub async fn hello(&mut self, instance: &str) -> payload::Welcome {
        let hello = json!({
            "agent": {"version": "0.1.0", "protocol": 1}, "instance": instance, "hostname": "box",
            "os": "Linux", "kernel": "6.1", "arch": "mips", "time": 1.0, "capabilities": ["command"],
            "plugins": [], "future": true,
        });
        self.send(&Message::with(payload::HELLO, &hello)).await;
        let welcome = self.expect(payload::WELCOME).await;
        welcome.read().unwrap()
    }

    pub async fn send(&mut self, message: &Message) {
        self.text(message.encode().unwrap()).await;
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

//! Poseidon's doors: tokens with roles and selectors, sessions, the audit log.
#![allow(missing_docs)]

mod common;

#[path = "doors/audit.rs"]
mod audit;
#[path = "doors/roles.rs"]
mod roles;
#[path = "doors/scopes.rs"]
mod scopes;
#[path = "doors/sessions.rs"]
mod sessions;

use common::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer: status, head, body.
struct Told {
    status: u16,
    head: String,
    body: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }
}

/// Sends a request by hand. Of a stream only the head is read.
async fn ask(url: &str, method: &str, path: &str, head: &[&str], body: &str) -> Told {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut text = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    if !head.iter().any(|line| line.starts_with("host:")) {
        text += "host: ";
        text += address;
        text += "\r\n";
    }
    for line in head {
        text += line;
        text += "\r\n";
    }
    text += "\r\n";
    text += body;
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let n = within(stream.read(&mut piece)).await.unwrap_or(0);
        answer.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && (n == 0 || head.contains("application/x-ndjson"))
        {
            return Told {
                status: head[9..12].parse().unwrap(),
                head: head.to_owned(),
                body: body.to_owned(),
            };
        }
        assert!(n > 0, "no answer to {method} {path}: {text}");
    }
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

/// Makes a token.
async fn token(rig: &Rig, name: &str, role: &str, on: &[&str]) -> String {
    let body = json!({"name": name, "role": role, "on": on});
    let answer: Value = rig.client.post("/tokens", &body).await.unwrap();
    answer["token"].as_str().unwrap().to_owned()
}

//! Poseidon's HTTP API, asked by a client that expects the server to die in the middle of an answer.

use serde_json::Value;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take. A server that is killed closes its connections, so nothing waits for this.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where the server is, and what opens it.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    token: String,
}

impl Api {
    pub fn new(address: &str, token: &str) -> Self {
        Self {
            address: address.parse().unwrap(),
            token: token.trim().to_owned(),
        }
    }

    /// Status and body. An error says that there was no whole answer; whether the call had its effect is unknown then.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<(u16, Value)> {
        let mut stream = TcpStream::connect_timeout(&self.address, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        // HTTP/1.0: the end of the connection is the end of the answer.
        let request = format!(
            "{method} /api/v1/{path} HTTP/1.0\r\nHost: poseidon\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        parse(&answer).ok_or_else(|| io::Error::other(format!("half an answer: {answer:.200}")))
    }

    pub fn get(&self, path: &str) -> io::Result<(u16, Value)> {
        self.call("GET", path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        self.call("POST", path, Some(body))
    }
}

fn parse(answer: &str) -> Option<(u16, Value)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

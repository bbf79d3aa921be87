//! Servers that follow a script: what a real Poseidon would never do.

use super::eventually;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use triton::message::Message;
use triton::message::payload::{self, Ack, Hello, Welcome};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{WebSocket, accept_hdr};

/// Answers each connection by a script, in a thread each. The threads end with the test's process.
pub struct Fake {
    pub url: String,
    pub requests: Arc<Mutex<Vec<String>>>,
    arrivals: Receiver<()>,
}

impl Fake {
    /// A server on raw TCP.
    pub fn tcp(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, arrivals) = channel();
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let _ = sender.send(());
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(stream));
            }
        });
        Self {
            url: format!("ws://{address}"),
            requests: Arc::default(),
            arrivals,
        }
    }

    /// A server that answers the request with fixed bytes.
    pub fn http(answer: &'static str) -> Self {
        Self::tcp(move |mut stream| {
            let mut head = Vec::new();
            let mut piece = [0; 1024];
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(n) if n > 0 => head.extend_from_slice(&piece[..n]),
                    _ => return,
                }
            }
            let _ = stream.write_all(answer.as_bytes());
        })
    }

    /// A server that speaks WebSocket. The script gets the connection after the upgrade.
    pub fn websocket(script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
        let fake = Self::tcp(move |stream| {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
            #[allow(clippy::result_large_err, reason = "tungstenite's own type")]
            let note = |request: &Request, response: Response| {
                let key = request.headers().get("authorization");
                let key = key
                    .map(|v| v.to_str().unwrap().to_owned())
                    .unwrap_or_default();
                seen.lock()
                    .unwrap()
                    .push(format!("{} {key}", request.uri()));
                Ok(response)
            };
            if let Ok(socket) = accept_hdr(stream, note) {
                script(Peer { socket });
            }
        });
        Self { requests, ..fake }
    }

    /// A WebSocket server that says `welcome` before its script goes on.
    pub fn welcoming(script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::websocket(move |mut peer| {
            if peer.welcome(&Welcome::default()).is_some() {
                script(peer);
            }
        })
    }

    /// A WebSocket server whose script gets the number of the connection, from 0, and says its own welcome.
    pub fn each(script: impl Fn(usize, Peer) + Send + Sync + 'static) -> Self {
        let count = AtomicUsize::new(0);
        Self::websocket(move |peer| script(count.fetch_add(1, Ordering::SeqCst), peer))
    }

    /// Waits for the next connection.
    #[track_caller]
    pub fn wait_for_connection(&self) {
        self.arrivals
            .recv_timeout(super::PATIENCE)
            .expect("the agent connects");
    }
}

/// An agent, as the server sees it.
pub struct Peer {
    pub socket: WebSocket<TcpStream>,
}

impl Peer {
    /// The next message; `None` when the connection has ended.
    pub fn next(&mut self) -> Option<Message> {
        loop {
            match self.socket.read().ok()? {
                tungstenite::Message::Text(text) => {
                    return Some(Message::decode(text.as_bytes(), 4 << 20).unwrap());
                }
                tungstenite::Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// The next message of a type, skipping others.
    pub fn next_of(&mut self, kind: &str) -> Option<Message> {
        loop {
            let message = self.next()?;
            if message.kind == kind {
                return Some(message);
            }
        }
    }

    /// The next message in a conversation, skipping others.
    pub fn next_in(&mut self, conversation: &str) -> Option<Message> {
        loop {
            let message = self.next()?;
            if message.conversation_id == conversation {
                return Some(message);
            }
        }
    }

    pub fn send(&mut self, message: &Message) {
        self.send_text(message.encode().unwrap());
    }

    pub fn send_text(&mut self, text: String) {
        let _ = self.socket.send(tungstenite::Message::text(text));
    }

    /// Waits for `hello` and answers it.
    pub fn welcome(&mut self, welcome: &Welcome) -> Option<Hello> {
        let hello = self.next_of(payload::HELLO)?;
        self.send(&hello.reply(payload::WELCOME, welcome));
        Some(hello.read().unwrap())
    }

    /// The same for a server that acknowledges records and has those up to `acked`.
    pub fn welcome_at(&mut self, acked: u64) -> Option<Hello> {
        self.welcome(&Welcome {
            acked: Some(acked),
            ..Welcome::default()
        })
    }

    /// Says that everything up to `through` is stored.
    pub fn ack(&mut self, through: u64) {
        self.send(&Message::with(payload::ACK, &Ack { through }));
    }

    /// The next record about a job, skipping other messages.
    pub fn next_record(&mut self) -> Option<Message> {
        loop {
            let message = self.next()?;
            if sequence(&message).is_some() {
                return Some(message);
            }
        }
    }

    /// Asks for the agent's status, so that what the agent had to say before is here now; returns that.
    pub fn until_status(&mut self) -> Vec<Message> {
        let request = Message::new(payload::AGENT_STATUS);
        self.send(&request);
        let mut before = Vec::new();
        while let Some(message) = self.next() {
            if message.conversation_id == request.id {
                break;
            }
            before.push(message);
        }
        before
    }

    /// Keeps the connection open, reading, until the agent leaves.
    pub fn idle(mut self) {
        while self.next().is_some() {}
    }

    /// Keeps the connection open without reading.
    pub fn ignore(self) {
        std::thread::sleep(super::PATIENCE * 10);
        drop(self);
    }
}

/// The number of a record about a job; none where the message is no record.
pub fn sequence(message: &Message) -> Option<u64> {
    let payload: serde_json::Value = message.read().ok()?;
    payload["sequence"].as_u64()
}

/// Where the script of a server puts what it saw.
#[derive(Clone, Default)]
pub struct Notes<T>(Arc<Mutex<Vec<T>>>);

impl<T: Clone> Notes<T> {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    pub fn add(&self, note: T) {
        self.0.lock().unwrap().push(note);
    }

    /// Waits for so many notes.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<T> {
        eventually("the server's script gets so far", || {
            let notes = self.0.lock().unwrap();
            (notes.len() >= count).then(|| notes.clone())
        })
    }
}

//! A device made by the test: what a Triton says and hears, one message at a time.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc as blocking};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message as Frame};
use triton::message::{DEFAULT_LIMIT, Message};

/// A connected device; it disconnects with this value.
pub struct Device {
    out: mpsc::UnboundedSender<Message>,
    inbox: blocking::Receiver<Message>,
    always: Arc<Mutex<HashMap<String, Value>>>,
}

impl Device {
    /// Connects, through a proxy that says it comes from `from`, and says `hello`; the error is the HTTP status that it was turned away with.
    pub fn connect(
        runtime: &Runtime,
        address: SocketAddr,
        identifier: &str,
        from: &str,
        hello: &Value,
    ) -> Result<Self, u16> {
        let mut request = format!("ws://{address}/")
            .into_client_request()
            .expect("a request");
        let headers = request.headers_mut();
        let bearer = format!("Bearer {identifier}").parse().expect("a header");
        headers.insert("Authorization", bearer);
        headers.insert("X-Forwarded-For", from.parse().expect("a header"));
        headers.insert("User-Agent", "triton/0.1.0".parse().expect("a header"));
        let socket = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("Poseidon listens");
            match tokio_tungstenite::client_async(request, stream).await {
                Ok((socket, _)) => Ok(socket),
                Err(Error::Http(answer)) => Err(answer.status().as_u16()),
                Err(e) => panic!("the handshake failed: {e}"),
            }
        })?;
        let (mut sink, mut stream) = socket.split();
        let (out, mut queue) = mpsc::unbounded_channel::<Message>();
        let (deliver, inbox) = blocking::channel();
        let always: Arc<Mutex<HashMap<String, Value>>> = Arc::default();
        // Weak: the connection ends with the device.
        let (answers, answer) = (always.clone(), out.downgrade());
        runtime.spawn(async move {
            while let Some(message) = queue.recv().await {
                let text = message.encode().expect("it can be written");
                if sink.send(Frame::text(text)).await.is_err() {
                    return;
                }
            }
            let _ = sink.close().await;
        });
        runtime.spawn(async move {
            while let Some(Ok(frame)) = stream.next().await {
                if let Frame::Text(text) = frame {
                    let message = Message::decode(text.as_bytes(), DEFAULT_LIMIT);
                    let message = message.expect("Poseidon writes well");
                    let payload = answers.lock().unwrap().get(&message.kind).cloned();
                    if let Some(payload) = payload {
                        let reply = message.reply(&message.kind, &payload);
                        let _ = answer.upgrade().map(|out| out.send(reply));
                    } else if deliver.send(message).is_err() {
                        return;
                    }
                }
            }
        });
        let device = Self { out, inbox, always };
        device.send("hello", hello);
        device.next("welcome");
        Ok(device)
    }

    /// Begins a conversation.
    pub fn send(&self, kind: &str, payload: &Value) {
        self.out
            .send(Message::with(kind, payload))
            .expect("connected");
    }

    /// Answers in the conversation of `request`.
    pub fn reply(&self, request: &Message, kind: &str, payload: &Value) {
        self.out
            .send(request.reply(kind, payload))
            .expect("connected");
    }

    /// Answers each question of this type with this from now on, however often it is asked.
    pub fn always(&self, kind: &str, payload: &Value) {
        let mut always = self.always.lock().unwrap();
        always.insert(kind.to_owned(), payload.clone());
    }

    /// Output of a job as clean text.
    pub fn output(&self, request: &Message, stream: &str, offset: usize, data: &str) {
        let payload = json!({"stream": stream, "offset": offset, "data": data, "encoding": "utf8"});
        self.reply(request, "output", &payload);
    }

    /// Output of a job as bytes.
    pub fn bytes(&self, request: &Message, stream: &str, offset: usize, data: &[u8]) {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        let payload =
            json!({"stream": stream, "offset": offset, "data": data, "encoding": "base64"});
        self.reply(request, "output", &payload);
    }

    /// The next message, which must be of this type.
    pub fn next(&self, kind: &str) -> Message {
        let message = self
            .inbox
            .recv_timeout(Duration::from_secs(20))
            .unwrap_or_else(|e| panic!("no {kind} came: {e}"));
        assert_eq!(message.kind, kind, "{message:?}");
        message
    }
}

/// A `hello` of a small router.
pub fn hello(instance: &str, hostname: &str) -> Value {
    json!({
        "agent": {"version": "0.1.0", "protocol": 1},
        "instance": instance,
        "hostname": hostname,
        "os": "OpenWrt 24.10.2",
        "kernel": "6.6.93",
        "arch": "aarch64",
        "clockSynced": true,
        "time": 1_700_000_000,
        "capabilities": ["command", "cancel"],
        "plugins": [],
    })
}

/// A heartbeat with everything in it; shares in percent.
pub fn health(load: u64, memory: u64, disk: u64) -> Value {
    let mib = 1_u64 << 20;
    let total = 512 * mib;
    json!({
        "uptime": 266_000,
        "systemLoad": load as f64 / 100.0,
        "processorLoad": [load as f64 / 100.0, load as f64 / 200.0],
        "loadAverage": [0.42, 0.31, 0.2],
        "physicalMemoryTotal": total,
        "physicalMemoryAvailable": total - total * memory / 100,
        "physicalMemoryUsed": total * memory / 100,
        "virtualMemoryTotal": total + 128 * mib,
        "virtualMemoryUsed": total * memory / 100 + 16 * mib,
        "virtualMemoryAvailable": 200 * mib,
        "fileDescriptorTotal": 97_000,
        "fileDescriptorUsed": 1312,
        "fileSystems": [
            {"mount": "/rom", "type": "squashfs", "name": "/dev/root",
             "spaceTotal": 5 * mib, "spaceUsed": 5 * mib, "spaceAvailable": 0},
            {"mount": "/overlay", "type": "f2fs", "name": "/dev/loop0",
             "spaceTotal": 100 * mib, "spaceUsed": disk * mib, "spaceAvailable": (100 - disk) * mib},
        ],
        "interfaces": [
            {"name": "br-lan", "rxBytes": 9_123_456_789_u64, "txBytes": 123_456_789, "rxErrors": 0,
             "txErrors": 0, "up": true, "addresses": ["192.168.1.1/24", "fd00:1234:5678::1/64"]},
            {"name": "wan", "rxBytes": 9_999_999, "txBytes": 888, "rxErrors": 3, "txErrors": 0,
             "up": true, "addresses": ["203.0.113.9/27"]},
        ],
        "temperatures": [{"label": "cpu-thermal", "celsius": 51.4}],
        "processes": 87,
        "agent": {"rss": 4 * mib, "queue": 0, "jobs": 0, "reconnects": 2},
    })
}

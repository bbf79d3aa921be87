//! A simulated agent: hello, heartbeats, a journal of numbers with acknowledgements, the real back-off.

use futures_util::{SinkExt as _, StreamExt as _};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message as Frame};
use triton::link::Kind;
use triton::link::backoff::Backoff;
use triton::message::payload::{
    self, Ack, AgentVersion, Bye, Hello, JournalState, Record, Welcome, code,
};
use triton::message::{DEFAULT_LIMIT, Message, id};

/// The agent's deadline for each phase.
const DEADLINE: Duration = Duration::from_secs(10);
/// Failures that are shown.
const SHOWN: usize = 10;

type Socket = WebSocketStream<TcpStream>;

/// Long enough that nobody could guess it.
pub fn identifier(n: u32) -> String {
    format!("storm-identifier-of-a-good-length-{n:06}")
}

/// What all agents share.
pub struct Fleet {
    address: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Since when it answers: failures of earlier attempts are expected.
    up: Option<Instant>,
    /// When the last server was gone: who has come since then is in. It may be some moments before the new one is
    /// known to be up.
    down: Option<Instant>,
    /// When each agent's attempt began that led to the record stored last, and when that was acknowledged.
    inside: BTreeMap<u32, (Instant, Instant)>,
    /// Attempts and sessions that failed although the server was up.
    failures: Vec<String>,
    /// What the server has forgotten.
    forgotten: Vec<String>,
}

impl Fleet {
    pub fn new(address: String) -> Self {
        Self {
            address,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn server_is_up(&self) {
        self.state().up = Some(Instant::now());
    }

    /// To be said before it is killed.
    pub fn server_goes_down(&self) {
        self.state().up = None;
    }

    /// To be said when it is gone.
    pub fn server_is_down(&self) {
        let mut state = self.state();
        state.down = Some(Instant::now());
        state.inside.clear();
    }

    pub fn inside(&self) -> usize {
        self.state().inside.len()
    }

    /// Seconds from `begun` to each arrival, and what each took from the attempt to the acknowledged record.
    pub fn arrivals(&self, begun: Instant) -> (Vec<f64>, Vec<f64>) {
        let state = self.state();
        let times = state.inside.values();
        let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        times
            .map(|(attempt, arrival)| (seconds(begun, *arrival), seconds(*attempt, *arrival)))
            .unzip()
    }

    pub fn verdict(&self) -> Result<(), String> {
        let state = self.state();
        for (what, notes) in [
            ("dropped", &state.failures),
            ("forgotten", &state.forgotten),
        ] {
            println!("  {what}: {}", notes.len());
            for note in notes.iter().take(SHOWN) {
                println!("    {note}");
            }
        }
        if state.failures.is_empty() && state.forgotten.is_empty() {
            Ok(())
        } else {
            Err("a server that was up dropped or forgot something".to_owned())
        }
    }

    fn failed(&self, n: u32, attempt: Instant, what: &str) {
        let mut state = self.state();
        if state.up.is_some_and(|up| attempt >= up) {
            state.failures.push(format!("agent {n}: {what}"));
        }
    }
}

pub struct Agent {
    n: u32,
    instance: String,
    journal: String,
    run: String,
    /// The last record, and the last that was acknowledged.
    last: u64,
    acked: u64,
}

/// Why there is no session, or none any more.
struct End {
    kind: Kind,
    what: String,
}

impl End {
    fn new(what: impl Into<String>) -> Self {
        Self {
            kind: Kind::Other,
            what: what.into(),
        }
    }
}

impl Agent {
    pub fn new(n: u32) -> Self {
        Self {
            n,
            instance: id::random(),
            journal: id::random(),
            run: id::random(),
            last: 0,
            acked: 0,
        }
    }

    /// Connects, speaks, waits, again.
    pub async fn live(mut self, fleet: Arc<Fleet>) {
        let mut backoff = Backoff::new();
        loop {
            let attempt = Instant::now();
            let kind = match self.connect(&fleet.address).await {
                Ok(socket) => {
                    let begun = Instant::now();
                    let end = self.speak(socket, &fleet, attempt).await;
                    backoff.session_ended(begun.elapsed());
                    fleet.failed(self.n, attempt, &end.what);
                    end.kind
                }
                Err(end) => {
                    fleet.failed(self.n, attempt, &end.what);
                    end.kind
                }
            };
            sleep(backoff.after(kind, chance())).await;
        }
    }

    async fn connect(&self, address: &str) -> Result<Socket, End> {
        let stream = timeout(DEADLINE, TcpStream::connect(address))
            .await
            .map_err(|_| End::new("connecting took too long"))?
            .map_err(|e| End::new(format!("tcp: {e}")))?;
        let mut request = format!("ws://{address}/triton")
            .into_client_request()
            .map_err(|e| End::new(e.to_string()))?;
        let bearer = format!("Bearer {}", identifier(self.n));
        if let Ok(value) = bearer.parse() {
            request.headers_mut().insert("authorization", value);
        }
        let upgrade = timeout(DEADLINE, tokio_tungstenite::client_async(request, stream)).await;
        match upgrade {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(Error::Http(answer))) => Err(End {
                kind: kind_of(&answer),
                what: format!("http: {}", answer.status()),
            }),
            Ok(Err(e)) => Err(End::new(format!("http: {e}"))),
            Err(_) => Err(End::new("http: no answer in time")),
        }
    }

    /// A session until its end.
    async fn speak(&mut self, mut socket: Socket, fleet: &Fleet, attempt: Instant) -> End {
        // Something new to tell each time, so that it shows whether the session works down to the store.
        self.last += 1;
        let welcome = match self.hello(&mut socket).await {
            Ok(welcome) => welcome,
            Err(end) => return end,
        };
        let Some(acked) = welcome.acked else {
            return End::new("welcome has no acked");
        };
        if acked < self.acked {
            let note = format!(
                "agent {}: {} was acknowledged, {acked} is stored",
                self.n, self.acked
            );
            fleet.state().forgotten.push(note);
        }
        if let Err(e) = self.send_records(&mut socket, acked).await {
            return e;
        }
        let seconds = welcome.heartbeat_seconds.unwrap_or(15).max(1);
        let mut beat = interval(Duration::from_secs(u64::from(seconds)));
        loop {
            let outcome = tokio::select! {
                frame = socket.next() => match frame {
                    Some(Ok(Frame::Text(text))) => self.receive(text.as_bytes(), fleet, attempt),
                    Some(Ok(Frame::Close(_))) | None => Err(End::new("closed")),
                    Some(Ok(_)) => Ok(()),
                    Some(Err(e)) => Err(End::new(e.to_string())),
                },
                _ = beat.tick() => {
                    let health = serde_json::json!({ "uptime": 1, "processes": 50 });
                    send(&mut socket, &Message::with(payload::HEARTBEAT, &health)).await
                }
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn hello(&self, socket: &mut Socket) -> Result<Welcome, End> {
        let hello = Hello {
            agent: AgentVersion::own(),
            instance: self.instance.clone(),
            hostname: format!("agent-{}", self.n),
            capabilities: vec![payload::COMMAND.to_owned()],
            journal: Some(JournalState {
                id: self.journal.clone(),
                state: "disk".to_owned(),
                reason: None,
                first: 1,
                last: self.last,
            }),
            run: Some(self.run.clone()),
            ..Hello::default()
        };
        send(socket, &Message::with(payload::HELLO, &hello)).await?;
        let frame = timeout(DEADLINE, socket.next())
            .await
            .map_err(|_| End::new("hello: no welcome in time"))?;
        let Some(Ok(Frame::Text(text))) = frame else {
            return Err(End::new(format!("hello: {frame:?}")));
        };
        let message = decode(text.as_bytes())?;
        if message.kind != payload::WELCOME {
            return Err(End::new(format!("hello: {message:?}")));
        }
        message.read().map_err(|e| End::new(e.to_string()))
    }

    /// What the server has not stored.
    async fn send_records(&self, socket: &mut Socket, acked: u64) -> Result<(), End> {
        let records: Vec<Record> = (acked + 1..=self.last).map(record).collect();
        let history = payload::History {
            records,
            last: self.last,
            more: false,
        };
        send(socket, &Message::with(payload::HISTORY, &history)).await
    }

    fn receive(&mut self, text: &[u8], fleet: &Fleet, attempt: Instant) -> Result<(), End> {
        let message = decode(text)?;
        match message.kind.as_str() {
            payload::ACK => {
                let ack: Ack = message.read().map_err(|e| End::new(e.to_string()))?;
                self.acked = self.acked.max(ack.through);
                let mut state = fleet.state();
                if self.acked == self.last && state.down.is_none_or(|down| attempt >= down) {
                    let now = Instant::now();
                    state.inside.entry(self.n).or_insert((attempt, now));
                }
                Ok(())
            }
            payload::BYE => {
                let bye: Bye = message.read().unwrap_or_default();
                Err(End::new(format!("bye: {}", bye.reason)))
            }
            payload::ERROR => Err(End::new(format!("{message:?}"))),
            _ => Ok(()),
        }
    }
}

fn record(n: u64) -> Record {
    Record {
        id: n,
        token: id::random(),
        code: code::VALUE,
        etime: 1.0,
        ctime: 1.0,
        conversation: None,
        data: serde_json::value::to_raw_value(&n).unwrap_or_default(),
    }
}

async fn send(socket: &mut Socket, message: &Message) -> Result<(), End> {
    let text = message.encode().map_err(|e| End::new(e.to_string()))?;
    let sent = socket.send(Frame::text(text)).await;
    sent.map_err(|e| End::new(e.to_string()))
}

fn decode(text: &[u8]) -> Result<Message, End> {
    Message::decode(text, DEFAULT_LIMIT).map_err(|e| End::new(e.to_string()))
}

/// As the agent's own upgrade judges it.
fn kind_of<T>(answer: &hyper::Response<T>) -> Kind {
    let seconds = answer.headers().get("retry-after");
    let seconds = seconds.and_then(|v| v.to_str().ok()?.parse().ok());
    match (answer.status().as_u16(), seconds) {
        (401 | 403, _) => Kind::Unregistered,
        (429 | 503, Some(seconds)) => Kind::RetryAfter(Duration::from_secs(seconds)),
        _ => Kind::Other,
    }
}

/// For the jitter.
fn chance() -> u32 {
    let hex = id::random();
    u32::from_str_radix(&hex[..8], 16).unwrap_or(u32::MAX / 2)
}

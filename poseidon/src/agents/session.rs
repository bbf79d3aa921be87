//! The conversation with one agent.

use super::Key;
use super::connection::{Connection, Out};
use super::registry::Arrival;
use crate::jobs::End;
use crate::server::App;
use crate::server::limits::Peer;
use crate::store::{Job, JobState};
use crate::time::now;
use futures_util::{Sink, SinkExt as _, Stream as Incoming, StreamExt as _};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use triton::message::payload::{self, ErrorCode};
use triton::message::{DEFAULT_LIMIT, Message, VERSION};

/// Who says nothing for so long after connecting is a plain Triton.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// A ping is sent after so many intervals of silence…
const PING_AFTER: f64 = 1.5;
/// …and the agent is down after so many.
const DOWN_AFTER: f64 = 2.5;
/// Time for `bye` and the close frame to leave.
const GOODBYE: Duration = Duration::from_secs(1);
/// Largest `hello` or heartbeat that is kept, in bytes of JSON.
const STATE_LIMIT: usize = 64 << 10;
/// Longest instance id, in characters.
const INSTANCE_LIMIT: usize = 128;
/// Largest part of a plain Triton's answer that is kept with the job.
const TAIL: usize = 4096;

/// How a session ends.
enum Ending {
    /// The connection ended or broke.
    Gone(String),
    /// Close it with this code and reason, after a `bye` where one is given.
    Close(CloseCode, &'static str),
}

/// Serves one agent until its connection ends.
pub async fn run<S>(
    app: &Arc<App>,
    socket: WebSocketStream<S>,
    connection: &Arc<Connection>,
    outbox: mpsc::Receiver<Out>,
    peer: Peer,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = socket.split();
    let mut session = Session {
        app,
        connection,
        peer,
        phase: Phase::Waiting,
        warned: false,
        asked: HashSet::new(),
    };
    // Reading and writing go on side by side, so that two full sockets cannot wait for each other.
    let ending = tokio::select! {
        ending = session.read(&mut stream) => ending,
        ending = write(&mut sink, outbox, connection) => ending,
        reason = connection.closed() => Ending::Close(CloseCode::Normal, reason),
    };
    let name = session.name();
    match &ending {
        Ending::Gone(reason) => log::info!("{name} is gone: {reason}"),
        Ending::Close(_, reason) => log::info!("{name} is disconnected: {reason}"),
    }
    if let Phase::Agent { key, plain, .. } = &session.phase {
        app.registry.leave(key, connection);
        if *plain {
            // It remembers nothing, and its next connection is somebody else's to Poseidon.
            for live in app.jobs.all_open_of(&key.identifier, Some(&key.instance)) {
                let reason = "the connection of this plain Triton ended before its answer came";
                app.jobs.end(&live, End::Error(lost(reason))).await;
            }
        }
    }
    if let Ending::Close(code, reason) = ending {
        let _ = timeout(GOODBYE, goodbye(&mut sink, &mut stream, code, reason)).await;
    }
}

async fn goodbye<S>(
    sink: &mut (impl Sink<Frame, Error = tungstenite::Error> + Unpin),
    stream: &mut S,
    code: CloseCode,
    reason: &'static str,
) -> Result<(), tungstenite::Error>
where
    S: Incoming<Item = Result<Frame, tungstenite::Error>> + Unpin,
{
    let bye = payload::Bye {
        reason: reason.to_owned(),
    };
    if let Ok(text) = Message::with(payload::BYE, &bye).encode() {
        sink.send(Frame::text(text)).await?;
    }
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    sink.send(Frame::Close(Some(frame))).await?;
    // Reading to the end lets the close frame arrive: closing on unread data resets the connection.
    while let Some(Ok(_)) = stream.next().await {}
    Ok(())
}

async fn write(
    sink: &mut (impl Sink<Frame, Error = tungstenite::Error> + Unpin),
    mut outbox: mpsc::Receiver<Out>,
    connection: &Connection,
) -> Ending {
    while let Some(out) = outbox.recv().await {
        let frame = match out {
            Out::Text(text) => {
                connection.queued.fetch_sub(text.len(), Ordering::Relaxed);
                Frame::text(text)
            }
            Out::Ping => Frame::Ping(tungstenite::Bytes::new()),
        };
        let sent = async {
            sink.feed(frame).await?;
            if outbox.is_empty() {
                sink.flush().await?;
            }
            Ok::<(), tungstenite::Error>(())
        };
        if let Err(e) = sent.await {
            return Ending::Gone(e.to_string());
        }
    }
    Ending::Gone("its queue has ended".to_owned())
}

enum Phase {
    /// Nothing is known yet.
    Waiting,
    /// It is up.
    Agent { key: Key, plain: bool, name: String },
}

struct Session<'a> {
    app: &'a Arc<App>,
    connection: &'a Arc<Connection>,
    peer: Peer,
    phase: Phase,
    warned: bool,
    /// Tokens of jobs from before this connection, of which the agent was asked where they stand.
    asked: HashSet<String>,
}

impl Session<'_> {
    fn name(&self) -> String {
        match &self.phase {
            Phase::Waiting => self.peer.0.to_string(),
            Phase::Agent { name, key, .. } => format!("{name} ({}, {})", key.instance, self.peer.0),
        }
    }

    async fn read<S>(&mut self, stream: &mut S) -> Ending
    where
        S: Incoming<Item = Result<Frame, tungstenite::Error>> + Unpin,
    {
        let interval = f64::from(self.app.registry.heartbeat_seconds());
        let (ping_after, down_after) = (
            Duration::from_secs_f64(interval * PING_AFTER),
            Duration::from_secs_f64(interval * DOWN_AFTER),
        );
        let started = Instant::now();
        let mut heard = started;
        let mut pinged = false;
        loop {
            let mut next = heard + if pinged { down_after } else { ping_after };
            if matches!(self.phase, Phase::Waiting) {
                next = next.min(started + HELLO_WAIT);
            }
            let Ok(frame) = timeout_at(next, stream.next()).await else {
                if matches!(self.phase, Phase::Waiting) && started.elapsed() >= HELLO_WAIT {
                    self.become_plain();
                } else if heard.elapsed() >= down_after {
                    return Ending::Close(CloseCode::Away, "silent");
                } else if heard.elapsed() >= ping_after {
                    self.connection.ping();
                    pinged = true;
                }
                continue;
            };
            heard = Instant::now();
            pinged = false;
            self.connection.hear();
            match frame {
                Some(Ok(Frame::Text(text))) => self.receive(text.as_bytes()).await,
                Some(Ok(Frame::Binary(_))) => self.refuse_binary().await,
                Some(Ok(Frame::Close(_))) | None => {
                    return Ending::Gone("it closed the connection".to_owned());
                }
                // Pings are answered by the WebSocket itself.
                Some(Ok(_)) => {}
                Some(Err(tungstenite::Error::Capacity(_))) => {
                    return Ending::Close(CloseCode::Size, "message too large");
                }
                Some(Err(e)) => return Ending::Gone(e.to_string()),
            }
        }
    }

    async fn refuse_binary(&self) {
        let reason = "messages travel in text frames, this one was binary";
        let error = payload::Error::new(ErrorCode::Invalid, reason);
        let message = Message::with(payload::ERROR, &error);
        self.connection.send_waiting(&message).await;
    }

    async fn receive(&mut self, bytes: &[u8]) {
        match Message::decode(bytes, DEFAULT_LIMIT) {
            Ok(message) => self.handle(message).await,
            Err(e) => {
                if !std::mem::replace(&mut self.warned, true) {
                    log::warn!("{} sends what cannot be read: {e}", self.name());
                }
                self.connection.send_waiting(&e.to_message()).await;
            }
        }
    }

    async fn handle(&mut self, message: Message) {
        let kind = message.kind.as_str();
        if kind == payload::HELLO && message.version == VERSION {
            return self.hello(&message).await;
        }
        let known = matches!(
            kind,
            payload::HEARTBEAT
                | payload::ACCEPTED
                | payload::OUTPUT
                | payload::PROGRESS
                | payload::RESULT
                | payload::BYE
                | payload::HELLO
                | payload::WELCOME
        );
        if kind != payload::ERROR && known && message.version != VERSION {
            let reply = message.reply_unsupported_version();
            return self.connection.send_waiting(&reply).await;
        }
        if matches!(self.phase, Phase::Waiting) {
            self.become_plain();
        }
        let Phase::Agent { key, plain, .. } = &self.phase else {
            return;
        };
        let (key, plain) = (key.clone(), *plain);
        let jobs = &self.app.jobs;
        let live = jobs.open_of(
            &message.conversation_id,
            &key.identifier,
            &key.instance,
            plain,
        );
        match (kind, live) {
            (payload::HEARTBEAT, _) => self.heartbeat(&key, &message).await,
            (payload::ACCEPTED, Some(live)) => jobs.accepted(&live),
            (payload::OUTPUT, Some(live)) => match message.read::<payload::Output>() {
                Ok(output) => {
                    let (stream, offset) = (output.stream, output.offset);
                    match output.into_bytes() {
                        Some(bytes) => jobs.output(&live, stream, offset, bytes).await,
                        None => self.complain(&message, "the base64 is wrong").await,
                    }
                }
                Err(e) => self.complain(&message, &e.to_string()).await,
            },
            (payload::PROGRESS, Some(live)) => match message.read::<payload::Progress>() {
                Ok(progress) => jobs.progress(&live, progress).await,
                Err(e) => self.complain(&message, &e.to_string()).await,
            },
            (payload::RESULT, Some(live)) => match read_value::<payload::JobResult>(&message) {
                Ok(value) if value["status"] == "expired" && self.asked_in_vain(&live.job()) => {
                    let reason = "the device knows nothing of this job: it was lost on the way, or \
                                  the agent was started anew since";
                    jobs.end(&live, End::Error(lost(reason))).await;
                }
                Ok(value) => jobs.end(&live, End::Result(raw(&value))).await,
                Err(_) if plain => self.end_plain(&live, &message).await,
                Err(reason) => {
                    // A job whose end cannot be read has ended all the same.
                    self.complain(&message, &reason).await;
                    let error = payload::Error::new(
                        ErrorCode::Invalid,
                        format!("the agent's result cannot be read: {reason}"),
                    );
                    jobs.end(&live, End::Error(error)).await;
                }
            },
            (payload::ERROR, live) => self.error(&key, plain, &message, live).await,
            // Of a job that has ended, or an answer to a cancel: nothing hangs on it.
            (_, None) if known => {
                log::debug!(
                    "{} sends {kind} in a conversation that is over",
                    self.name()
                );
            }
            (_, Some(_)) if known => {}
            (_, Some(live)) if plain => self.end_plain(&live, &message).await,
            _ => {
                let reply = message.reply_error(
                    ErrorCode::UnknownType,
                    format!("Poseidon does not know {}", truncated(kind, 100)),
                );
                self.connection.send_waiting(&reply).await;
            }
        }
    }

    async fn hello(&mut self, message: &Message) {
        let (hello, value) = match message
            .read::<payload::Hello>()
            .map_err(|e| e.to_string())
            .and_then(|hello| read_value::<payload::Hello>(message).map(|value| (hello, value)))
        {
            Ok(both) => both,
            Err(reason) => return self.complain(message, &reason).await,
        };
        let length = hello.instance.chars().count();
        let bad = |c: char| !(c.is_ascii_graphic() || c.is_alphanumeric()) || c == '/';
        if !(1..=INSTANCE_LIMIT).contains(&length) || hello.instance.contains(bad) {
            let reason =
                "hello needs an instance: 1 to 128 letters, digits or signs, without slash";
            return self.complain(message, reason).await;
        }
        let hello_json = raw(&value);
        if hello_json.get().len() > STATE_LIMIT {
            return self.complain(message, "this hello is too large").await;
        }
        if let Phase::Agent { key, plain, .. } = &self.phase
            && key.instance != hello.instance
        {
            // It was taken for a plain Triton because its hello came late, or it changes its instance.
            self.app.registry.leave(key, self.connection);
            if *plain {
                self.app.registry.remove(key);
            }
        }
        let Some((name, attributes)) = self.app.registry.settings(&self.connection.identifier)
        else {
            return self.connection.close("forgotten");
        };
        let welcome = payload::Welcome {
            name: Some(name),
            attributes,
            heartbeat_seconds: Some(self.app.registry.heartbeat_seconds()),
            deltas: true,
            acked: None,
            time: Some(now()),
        };
        // First the welcome, then the registry: once it is there it can be given commands.
        let reply = message.reply(payload::WELCOME, &welcome);
        self.connection.send_waiting(&reply).await;
        // Those that are open now were sent on an earlier connection; what comes later is sent on this one.
        let identifier = &self.connection.identifier;
        let open = self.app.jobs.all_open_of(identifier, Some(&hello.instance));
        let arrival = Arrival {
            instance: Some(hello.instance),
            hello: Some(hello_json),
            address: self.peer.0.to_string(),
        };
        self.arrive(arrival, false);
        for live in open {
            let job = live.job();
            if job.state != JobState::Ended {
                self.ask(&job).await;
            }
        }
    }

    /// Asks where a job stands, by its request once more: a known token is answered with the job's state or
    /// its end, and an unknown one starts nothing, because the time in which it may start is over.
    async fn ask(&mut self, job: &Job) {
        let Ok(Value::Object(mut request)) = serde_json::from_str(job.request.get()) else {
            return;
        };
        request.remove("notBefore");
        request.insert("notAfter".to_owned(), 1.into());
        let mut message = Message::within(&job.token, payload::COMMAND, &request);
        message.id.clone_from(&job.token);
        self.asked.insert(job.token.clone());
        self.connection.send_waiting(&message).await;
    }

    /// Whether an `expired` is the answer to [`Self::ask`] and not the job's own end.
    fn asked_in_vain(&self, job: &Job) -> bool {
        let own = serde_json::from_str::<Value>(job.request.get())
            .is_ok_and(|request| request["notAfter"].is_number());
        self.asked.contains(&job.token) && !own
    }

    fn become_plain(&mut self) {
        let arrival = Arrival {
            instance: None,
            hello: None,
            address: self.peer.0.to_string(),
        };
        self.arrive(arrival, true);
    }

    fn arrive(&mut self, arrival: Arrival, plain: bool) {
        let registry = &self.app.registry;
        let Some(key) = registry.arrive(self.connection, arrival) else {
            self.connection.close("not let in");
            return;
        };
        let name = registry
            .settings(&key.identifier)
            .map_or_else(String::new, |(name, _)| name);
        let first = matches!(self.phase, Phase::Waiting);
        self.phase = Phase::Agent { key, plain, name };
        if first {
            log::info!("{} is up", self.name());
        }
    }

    async fn heartbeat(&self, key: &Key, message: &Message) {
        let value = match read_value::<payload::Heartbeat>(message) {
            Ok(value) => value,
            Err(reason) => return self.complain(message, &reason).await,
        };
        let Value::Object(mut fields) = value else {
            return self.complain(message, "a heartbeat is an object").await;
        };
        if fields.remove("delta") == Some(Value::Bool(true))
            && let Some(last) = self.app.registry.health(key)
            && let Ok(mut whole) = serde_json::from_str::<serde_json::Map<_, _>>(last.get())
        {
            whole.append(&mut fields);
            fields = whole;
        }
        let health = raw(&Value::Object(fields));
        if health.get().len() > STATE_LIMIT {
            return self.complain(message, "this heartbeat is too large").await;
        }
        self.app.registry.set_health(key, health);
    }

    /// An `error` is never answered by an `error`.
    async fn error(
        &self,
        key: &Key,
        plain: bool,
        message: &Message,
        live: Option<Arc<crate::jobs::Live>>,
    ) {
        let error = message.read::<payload::Error>().unwrap_or_else(|_| {
            let text = message.payload.as_deref().unwrap_or("");
            payload::Error::new(ErrorCode::Invalid, truncated(text, 1000))
        });
        let jobs = &self.app.jobs;
        if let Some(live) = live {
            return jobs.end(&live, End::Error(error)).await;
        }
        if let Some(token) = jobs.cancelled(&message.conversation_id) {
            // The agent has no such job: it never got it, or it has lost its memory.
            if error.code == ErrorCode::NotFound
                && let Some(live) = jobs.open_of(&token, &key.identifier, &key.instance, plain)
            {
                return jobs.end(&live, End::Error(error)).await;
            }
        }
        log::warn!(
            "{} says: {}: {}",
            self.name(),
            truncated(error.code.as_str(), 64).escape_debug(),
            truncated(&error.message, 1000).escape_debug()
        );
    }

    /// A plain Triton answers a command in its own words: the job has succeeded, and the words are its output.
    async fn end_plain(&self, live: &Arc<crate::jobs::Live>, message: &Message) {
        let text = message.payload.clone().unwrap_or_default();
        let start = text.len().saturating_sub(TAIL);
        let start = (start..text.len())
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(text.len());
        let tail = triton::message::text::Data::from_bytes(&text.as_bytes()[start..]);
        let result = payload::JobResult {
            stdout_bytes: text.len() as u64,
            tail: payload::Tail {
                stdout: tail,
                ..payload::Tail::default()
            },
            ..payload::JobResult::without_process(payload::Status::Succeeded, None)
        };
        let jobs = &self.app.jobs;
        jobs.output(live, payload::Stream::Stdout, 0, text.into_bytes())
            .await;
        let Ok(value) = serde_json::to_value(&result) else {
            return;
        };
        jobs.end(live, End::Result(raw(&value))).await;
    }

    async fn complain(&self, message: &Message, reason: &str) {
        log::debug!("{}: {} is refused: {reason}", self.name(), message.kind);
        let reply = message.reply_error(ErrorCode::Invalid, reason);
        self.connection.send_waiting(&reply).await;
    }
}

/// How a job ends of which nobody knows anything.
fn lost(reason: &str) -> payload::Error {
    payload::Error::new(ErrorCode::Other("lost".to_owned()), reason)
}

/// A payload as JSON, after a check that it is a `T`. JSON keeps the fields that `T` does not know.
fn read_value<T>(message: &Message) -> Result<Value, String>
where
    T: serde::de::DeserializeOwned + serde::Serialize,
{
    let typed = message.read::<T>().map_err(|e| e.to_string())?;
    let text = message.payload.as_deref().unwrap_or("").trim();
    if !text.is_empty()
        && !text.starts_with('<')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    serde_json::to_value(&typed).map_err(|e| e.to_string())
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn truncated(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

//! The conversation with one agent.

use super::Key;
use super::connection::{Connection, Out, Outbox};
use super::data::Provider;
use super::recorder::Recorder;
use super::registry::Registry;
use super::welcome::Greeting;
use crate::jobs::End;
use crate::server::App;
use crate::server::limits::Peer;
use crate::store::JobState;
use futures_util::{Sink, SinkExt as _, Stream as Incoming, StreamExt as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use triton::message::{Message, payload};

/// Who says nothing for so long after connecting is a plain Triton.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// A ping is sent after so many intervals of silence…
const PING_AFTER: f64 = 1.5;
/// …and the agent is down after so many.
const DOWN_AFTER: f64 = 2.5;
/// Time for `bye` and the close frame to leave.
const GOODBYE: Duration = Duration::from_secs(1);
/// Largest `hello` or heartbeat that is kept, in bytes of JSON.
pub(super) const STATE_LIMIT: usize = 64 << 10;

/// How a session ends.
enum Ending {
    /// The connection ended or broke.
    Gone(String),
    /// The agent closes it.
    Closed,
    /// Close it with this code and reason, after a `bye` where one is given.
    Close(CloseCode, &'static str),
}

/// Serves one agent until its connection ends.
pub async fn run<S>(
    app: &Arc<App>,
    socket: WebSocketStream<S>,
    connection: &Arc<Connection>,
    outbox: Outbox,
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
        recorder: None,
        provider: None,
        moves: 0,
    };
    // Reading and writing go on side by side, so that two full sockets cannot wait for each other.
    let ending = tokio::select! {
        ending = session.read(&mut stream) => ending,
        ending = write(&mut sink, outbox, connection, &app.registry) => ending,
        reason = connection.closed() => Ending::Close(CloseCode::Normal, reason),
    };
    let name = session.name();
    match &ending {
        Ending::Gone(reason) => log::info!("{name} is gone: {reason}"),
        Ending::Closed => log::info!("{name} is gone: it closed the connection"),
        Ending::Close(_, reason) => log::info!("{name} is disconnected: {reason}"),
    }
    // From here on it is no obstacle to a new connection of the same agent.
    connection.end();
    if matches!(ending, Ending::Closed) {
        // The close frame that answers its own is queued, and leaves now.
        let _ = timeout(GOODBYE, sink.flush()).await;
    }
    // What was received is finished; an acknowledgement that does not get out any more is in the next welcome.
    session.finish_records().await;
    session.leave().await;
    if let Ending::Close(code, reason) = ending {
        let last = connection.take_last();
        let _ = timeout(GOODBYE, goodbye(&mut sink, &mut stream, code, reason, last)).await;
    }
}

async fn goodbye<S>(
    sink: &mut (impl Sink<Frame, Error = tungstenite::Error> + Unpin),
    stream: &mut S,
    code: CloseCode,
    reason: &'static str,
    last: Option<String>,
) -> Result<(), tungstenite::Error>
where
    S: Incoming<Item = Result<Frame, tungstenite::Error>> + Unpin,
{
    if let Some(text) = last {
        sink.send(Frame::text(text)).await?;
    }
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
    // Reading to the end lets the close frame arrive: closing on unread data resets the connection. What comes is not
    // acknowledged, or its job is still open: the agent tells it again.
    while let Some(Ok(_)) = stream.next().await {}
    Ok(())
}

async fn write(
    sink: &mut (impl Sink<Frame, Error = tungstenite::Error> + Unpin),
    mut outbox: Outbox,
    connection: &Connection,
    registry: &Registry,
) -> Ending {
    let mut greeted: Option<Box<Greeting>> = None;
    while let Some(out) = outbox.next().await {
        let mut interval = None;
        let mut welcome = |greeting: &Greeting, first| {
            let welcome = registry.welcome(connection, greeting, first)?;
            interval = Some(welcome.interval);
            Some(Frame::text(welcome.text))
        };
        let frame = match out {
            Out::Text(text) => {
                connection.queued.fetch_sub(text.len(), Ordering::Relaxed);
                Some(Frame::text(text))
            }
            Out::Welcome(greeting) => welcome(greeted.insert(greeting), true),
            Out::Again => {
                connection.tells();
                greeted.as_deref().and_then(|known| welcome(known, false))
            }
            Out::Content(text) => Some(Frame::text(text)),
            Out::Ping => Some(Frame::Ping(tungstenite::Bytes::new())),
        };
        let sent = async {
            if let Some(frame) = frame {
                sink.feed(frame).await?;
            }
            if outbox.is_empty() {
                sink.flush().await?;
                connection.room.notify_one();
            }
            Ok::<(), tungstenite::Error>(())
        };
        if let Err(e) = sent.await {
            return Ending::Gone(e.to_string());
        }
        // Its silence is judged by what it was told.
        if let Some(interval) = interval {
            connection.set_interval(interval);
        }
    }
    Ending::Gone("its queue has ended".to_owned())
}

pub(super) enum Phase {
    /// Nothing is known yet.
    Waiting,
    /// It only tries whether it would be let in.
    Probe,
    /// It is up.
    Agent { key: Key, plain: bool, name: String },
}

pub(super) struct Session<'a> {
    pub app: &'a Arc<App>,
    pub connection: &'a Arc<Connection>,
    pub peer: Peer,
    pub phase: Phase,
    pub warned: bool,
    /// Stores the records of an agent that has a journal.
    pub recorder: Option<Recorder>,
    /// Gives it content, once it has asked for some.
    pub provider: Option<Provider>,
    /// How often it has become another instance.
    pub moves: u32,
}

impl Session<'_> {
    pub(super) fn name(&self) -> String {
        match &self.phase {
            Phase::Waiting | Phase::Probe => self.peer.0.to_string(),
            Phase::Agent { name, key, .. } => format!("{name} ({}, {})", key.instance, self.peer.0),
        }
    }

    /// Waits until the records that came are stored, or cannot be.
    pub(super) async fn finish_records(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            recorder.finish().await;
        }
    }

    /// It is down, or becomes another.
    pub(super) async fn leave(&mut self) {
        let Phase::Agent { key, plain, .. } = &self.phase else {
            return;
        };
        self.app.registry.leave(key, self.connection);
        if *plain {
            self.lose_jobs(key, None).await;
        }
    }

    /// A plain Triton remembers nothing, and its next connection is somebody else's to Poseidon: its open jobs are
    /// lost, but those that were sent on the connection `but`.
    pub(super) async fn lose_jobs(&self, key: &Key, but: Option<u64>) {
        let jobs = &self.app.jobs;
        for live in jobs.all_open_of(&key.identifier, Some(&key.instance)) {
            let spared = but.is_some_and(|connection| live.was_sent_on(connection));
            if live.state() != JobState::Queued && !spared {
                let reason = "the connection of this plain Triton ended before its answer came";
                let error = super::handle::lost(reason);
                jobs.end(&live, End::Error(error)).await;
            }
        }
    }

    async fn read<S>(&mut self, stream: &mut S) -> Ending
    where
        S: Incoming<Item = Result<Frame, tungstenite::Error>> + Unpin,
    {
        let started = Instant::now();
        let mut interval = self.connection.interval();
        let mut heard = started;
        let mut pinged = false;
        loop {
            if interval != self.connection.interval() {
                // Silence is counted anew: that of a longer interval is no offence against a shorter one.
                interval = self.connection.interval();
                heard = Instant::now();
                pinged = false;
            }
            let intervals = |n: f64| Duration::from_secs_f64(f64::from(interval) * n);
            let (ping_after, down_after) = (intervals(PING_AFTER), intervals(DOWN_AFTER));
            let mut next = heard + if pinged { down_after } else { ping_after };
            if matches!(self.phase, Phase::Waiting | Phase::Probe) {
                next = next.min(started + HELLO_WAIT);
            }
            let frame = tokio::select! {
                frame = timeout_at(next, stream.next()) => frame,
                () = self.connection.retimed() => continue,
            };
            let Ok(frame) = frame else {
                if matches!(self.phase, Phase::Probe) && started.elapsed() >= HELLO_WAIT {
                    return Ending::Close(CloseCode::Normal, "probe");
                }
                if matches!(self.phase, Phase::Waiting) && started.elapsed() >= HELLO_WAIT {
                    self.become_plain().await;
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
                Some(Ok(Frame::Close(_))) => return Ending::Closed,
                None => return Ending::Gone("it closed the connection".to_owned()),
                Some(Ok(Frame::Pong(_))) => self.connection.pong(),
                // Pings are answered by the WebSocket itself.
                Some(Ok(_)) => {}
                Some(Err(tungstenite::Error::Capacity(_))) => {
                    return Ending::Close(CloseCode::Size, "message too large");
                }
                // Nothing can be read behind such a frame.
                Some(Err(tungstenite::Error::Utf8(_))) => {
                    return Ending::Close(CloseCode::Invalid, "text that is not UTF-8");
                }
                Some(Err(tungstenite::Error::Protocol(e)))
                    if !matches!(e, ProtocolError::ResetWithoutClosingHandshake) =>
                {
                    log::info!("{} breaks the WebSocket protocol: {e}", self.name());
                    return Ending::Close(CloseCode::Protocol, "broken frame");
                }
                Some(Err(e)) => return Ending::Gone(e.to_string()),
            }
        }
    }
}

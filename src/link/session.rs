//! One connection's life: `hello` and `welcome`, messages in both directions, keep-alive, the end.

use super::control::{Control, Order};
use super::feed::{Feed, Turn};
use super::keepalive::{KeepAlive, Verdict};
use super::status::{LinkStatus, State};
use super::{Connection, Incoming};
use crate::dispatch::Dispatcher;
use crate::heartbeat::Heartbeat;
use crate::journal::Journal;
use crate::message::payload::{self, Ack, Bye, Hello, Welcome};
use crate::message::{ErrorCode, Message, VERSION};
use crate::outbox::Outbox;
use crate::plugin::health::{Depth, delta};
use crate::plugin::{Origin, Peer};
use crate::scripts::Attributes;
use crate::sys::poll::{GONE, IN, OUT, PollSet};
use crate::trust::{Trust, Worth};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Frames handled before what waits to be sent has its turn.
const READS_A_TURN: usize = 32;
/// How long an orderly end may take to hand over what waits.
const FAREWELL: Duration = Duration::from_secs(1);
/// Every so many heartbeats one is whole.
const WHOLE_EVERY: u32 = 20;

/// What a session works with.
pub struct Context<'a> {
    /// What waits to be sent.
    pub outbox: &'a Arc<Outbox>,
    /// What has to reach the server.
    pub journal: &'a Journal,
    /// Acts on requests.
    pub dispatcher: &'a Dispatcher,
    /// Is told when a connection stands.
    pub heartbeat: &'a Heartbeat,
    /// Is told what happens.
    pub status: &'a LinkStatus,
    /// What Poseidon says of this device, for its scripts.
    pub attributes: &'a Attributes,
    /// Whom this device obeys.
    pub trust: &'a Trust,
    /// Stop and reload come from here.
    pub control: &'a Control,
    /// Heartbeat interval unless the server names one.
    pub interval: Duration,
    /// How long `welcome` may take.
    pub hello: Duration,
    /// How long a pong may take.
    pub pong: Duration,
    /// Bytes of one message.
    pub message_limit: usize,
    /// Bytes of events in one message.
    pub event_bytes: usize,
}

/// Why a session ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The agent stops.
    Stopped,
    /// Other settings are in force.
    Reload,
    /// Another living agent has the same instance id.
    Collision,
    /// Poseidon does not believe this device, for this reason.
    Untrusted(String),
    /// The server closed, or the connection broke.
    Lost(String),
}

/// Characters of a `bye` that are shown.
const BYE_LIMIT: usize = 200;
/// The reason in a `bye` that means so.
const COLLISION: &str = "collision";

struct Session<'a> {
    context: &'a Context<'a>,
    connection: Connection,
    life: KeepAlive,
    /// Whom messages come from, and what waits for it. A foreign Poseidon has a queue of its own: to jobs it is another
    /// peer, which has no business with them, and they wait as without a connection.
    peer: Peer,
    feed: Feed<'a>,
    /// Until when `welcome` is waited for; `None` once messages flow.
    welcome_by: Option<Instant>,
    /// What the server takes in place of whole heartbeats.
    deltas: Option<Depth>,
    /// The last heartbeat sent, where it takes such.
    last_beat: Option<serde_json::Value>,
    beats: u32,
    /// An end that is being carried out.
    leaving: Option<Leaving>,
    /// Why the server says that it ends the connection.
    bye: String,
    /// What was wrong with its `welcome`.
    bad_welcome: Option<String>,
    /// Id of the `hello`.
    hello: String,
    untrusted: Option<String>,
}

struct Leaving {
    end: End,
    /// Until when what waits may be handed over.
    by: Instant,
    /// Whether the records are waited for too, and for their acknowledgement. Else they are the next connection's.
    records: bool,
    /// Said last. Not in the outbox: what is left there is the next connection's.
    bye: Option<Message>,
}

/// Speaks over `connection` until it ends. Whatever ends it, outbox and journal are offline afterwards.
pub fn run(connection: Connection, hello: &Hello, context: &Context<'_>) -> End {
    let now = Instant::now();
    let mut session = Session {
        connection,
        context,
        life: KeepAlive::new(context.interval, context.pong, now),
        peer: Peer {
            outbox: Arc::clone(context.outbox),
            origin: Origin::Poseidon,
        },
        feed: Feed::new(context.journal, context.event_bytes),
        welcome_by: Some(now + context.hello),
        deltas: None,
        last_beat: None,
        beats: 0,
        leaving: None,
        bye: String::new(),
        bad_welcome: None,
        hello: String::new(),
        untrusted: None,
    };
    let end = session.speak(hello);
    context.heartbeat.pause();
    context.outbox.set_online(false);
    context.journal.disconnected();
    context.dispatcher.disconnected();
    context.trust.ended();
    end
}

impl Session<'_> {
    fn speak(&mut self, hello: &Hello) -> End {
        let trust = self.context.trust;
        let hello = trust.hello(hello, self.connection.challenge());
        self.hello.clone_from(&hello.id);
        if let Err(e) = self.send(&hello) {
            return End::Lost(e);
        }
        loop {
            match self.turn() {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                // Something broke while leaving: it is an end all the same.
                Err(reason) => {
                    return match self.leaving.take() {
                        Some(leaving) => leaving.end,
                        None if self.bye == COLLISION => End::Collision,
                        None if self.untrusted.is_some() => {
                            End::Untrusted(self.untrusted.take().unwrap_or_default())
                        }
                        // However it closes then.
                        None if !self.bye.is_empty() => {
                            End::Lost(format!("the server said bye: {:?}", self.bye))
                        }
                        None => End::Lost(reason),
                    };
                }
            }
        }
    }

    /// Reads, decides, writes, waits. `Err` is why the connection is lost.
    fn turn(&mut self) -> Result<Option<End>, String> {
        self.context.control.pulse().beat();
        let more_to_read = self.read()?;
        self.obey();
        let now = Instant::now();
        if self.welcome_by.is_some_and(|by| now >= by) {
            self.begin_plain()?;
            log::info!(
                "no welcome from the server: taking it for one that speaks the plain format only"
            );
        }
        match self.life.check(now) {
            Verdict::Wait => {}
            Verdict::Ask => self.connection.ping().map_err(|e| e.to_string())?,
            Verdict::Dead => {
                return Err(format!(
                    "no sign of life from the server: the ping was not answered within {} s",
                    self.context.pong.as_secs()
                ));
            }
        }
        let journal = self.context.journal;
        if journal.sync_due().is_some_and(|at| now >= at) {
            journal.sync();
        }
        self.write()?;
        if let Some(leaving) = &self.leaving
            && (Instant::now() >= leaving.by
                || !(self.connection.wants_write()
                    || self.peer.outbox.has_work()
                    || (leaving.records && !self.feed.is_done())))
        {
            return Ok(self.take_leave());
        }
        let leave = self.leaving.as_ref().map(|l| l.by);
        let deadline = [self.welcome_by, leave, journal.sync_due()]
            .into_iter()
            .flatten()
            .fold(self.life.next(), Instant::min);
        self.wait(if more_to_read {
            Instant::now()
        } else {
            deadline
        })
        .map(|()| None)
    }

    fn wait(&self, deadline: Instant) -> Result<(), String> {
        let outbox = &self.peer.outbox;
        let mut events = 0;
        // Who does not take its answers is not asked for more requests.
        if !outbox.is_congested() {
            events |= IN;
        }
        if self.connection.wants_write() {
            events |= OUT;
        }
        let mut set = PollSet::new();
        let socket = set.add(self.connection.fd(), events);
        let work = set.add(outbox.wake().as_fd(), IN);
        let journal = self.context.journal.wake();
        let records = set.add(journal.as_fd(), IN);
        let question = set.add(self.context.control.question().as_fd(), IN);
        // An order that is being carried out needs no second hearing.
        if self.leaving.is_none() {
            set.add(self.context.control.wake().as_fd(), IN);
        }
        set.wait(Some(deadline))
            .map_err(|e| format!("poll fails: {e}"))?;
        if set.ready(socket) & GONE != 0 && events & IN == 0 {
            return Err("the connection broke".to_owned());
        }
        if set.ready(work) != 0 {
            outbox.wake().clear();
        }
        if set.ready(records) != 0 {
            journal.clear();
        }
        if set.ready(question) != 0 {
            self.context.control.question().clear();
        }
        Ok(())
    }

    /// Handles what came; true where more may be there.
    fn read(&mut self) -> Result<bool, String> {
        for _ in 0..READS_A_TURN {
            // Each message may wait for the disk.
            self.context.control.pulse().beat();
            if self.peer.outbox.is_congested() {
                return Ok(false);
            }
            let Some(incoming) = self.connection.receive().map_err(|e| e.to_string())? else {
                return Ok(false);
            };
            self.life.heard(Instant::now());
            match incoming {
                Incoming::Text(text) => self.receive(text.as_bytes())?,
                Incoming::TooLarge { size } => {
                    let reason = format!(
                        "the message has {size} bytes, more than the limit of {} (limits.message_bytes)",
                        self.context.message_limit
                    );
                    self.refuse(ErrorCode::TooLarge, &reason)?;
                    // It may have been the welcome, and then this is no plain server.
                    if self.welcome_by.is_some() {
                        self.bad_welcome = Some(reason);
                    }
                }
                Incoming::NotText => self.refuse(ErrorCode::Invalid, "invalid UTF-8")?,
                Incoming::Binary => {
                    self.refuse(
                        ErrorCode::Invalid,
                        "messages travel in text frames, this one was binary",
                    )?;
                }
                Incoming::Ping | Incoming::Pong => {}
                Incoming::Close { code, reason } => {
                    let _ = self.connection.flush();
                    return Err(format!(
                        "the server closed the connection ({code} {reason:?})"
                    ));
                }
            }
        }
        Ok(true)
    }

    fn refuse(&mut self, code: ErrorCode, reason: &str) -> Result<(), String> {
        log::warn!("a message from the server was refused: {reason}");
        let error = payload::Error::new(code, reason);
        self.answer(Message::with(payload::ERROR, &error))
    }

    /// Answers also before `welcome`, when the outbox keeps what it has.
    fn answer(&mut self, message: Message) -> Result<(), String> {
        if self.peer.outbox.is_online() {
            self.peer.outbox.push(message);
            return Ok(());
        }
        self.send(&message)
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        let message = match Message::decode(bytes, self.context.message_limit) {
            Ok(message) => message,
            Err(e) => {
                log::warn!("a message from the server was refused: {e}");
                return self.answer(e.to_message());
            }
        };
        match message.kind.as_str() {
            payload::WELCOME | payload::BYE | payload::ACK if message.version != VERSION => {
                return self.answer(message.reply_unsupported_version());
            }
            payload::WELCOME => match message.read::<Welcome>() {
                Ok(welcome) => {
                    let place = self.connection.peer().to_owned();
                    match self.context.trust.welcome(&message, &welcome, &place) {
                        Worth::Foreign(reason) => self.begin_foreign(&reason)?,
                        Worth::Open | Worth::Trusted => self.begin(&welcome, false),
                    }
                }
                Err(e) => {
                    log::warn!("the server's welcome was refused: {e}");
                    let reply = message.reply_error(ErrorCode::Invalid, e.to_string());
                    self.bad_welcome = Some(e.to_string());
                    return self.answer(reply);
                }
            },
            payload::BYE => {
                let bye = message.read::<Bye>().unwrap_or_default();
                log::info!("the server says bye: {:?}", bye.reason);
                self.bye = bye.reason.chars().take(BYE_LIMIT).collect();
                if self.bye == COLLISION {
                    let _ = self.connection.close(1000, "");
                    return Err("another agent has the same instance id".to_owned());
                }
            }
            // In place of a welcome. What it gets from such a server would count as stored.
            payload::ERROR
                if self.welcome_by.is_some() && message.conversation_id == self.hello =>
            {
                let read = message.read::<payload::Error>().ok();
                let Some(error) = read.filter(|e| !knows_no_hello(&e.code)) else {
                    self.begin_plain()?;
                    self.context.dispatcher.handle(&message, &self.peer);
                    return Ok(());
                };
                let _ = self.connection.close(1000, "");
                if error.code == ErrorCode::Untrusted {
                    self.untrusted = Some(error.message);
                    return Err("Poseidon does not believe this device".to_owned());
                }
                return Err(format!(
                    "the server refuses the hello: {}: {:?}",
                    error.code.as_str(),
                    error.message
                ));
            }
            _ => {
                // Whoever sends anything else first knows no hello.
                if self.welcome_by.is_some() {
                    self.begin_plain()?;
                }
                if message.kind != payload::ACK {
                    self.context.dispatcher.handle(&message, &self.peer);
                    return Ok(());
                }
                match message.read::<Ack>() {
                    Ok(ack) => self.feed.acknowledged(ack.through),
                    Err(e) => {
                        log::warn!("the server's ack was refused: {e}");
                        return self.answer(message.reply_error(ErrorCode::Invalid, e.to_string()));
                    }
                }
            }
        }
        Ok(())
    }

    /// The server knows no `welcome`. To one that does, records must not go as if it had stored them.
    fn begin_plain(&mut self) -> Result<(), String> {
        if let Some(why) = self.bad_welcome.take() {
            let _ = self.connection.close(1000, "");
            return Err(format!("the server's welcome is refused: {why}"));
        }
        match self.context.trust.plain(self.connection.peer()) {
            Worth::Foreign(reason) => self.begin_foreign(&reason)?,
            Worth::Open | Worth::Trusted => self.begin(&Welcome::default(), true),
        }
        Ok(())
    }

    /// The server is not the one that this device obeys. It gets heartbeats and answers. Records, output and content are
    /// for the right one.
    fn begin_foreign(&mut self, reason: &str) -> Result<(), String> {
        if Arc::ptr_eq(&self.peer.outbox, self.context.outbox) {
            // What the right one was sent is on this connection: another one has no say on it.
            if self.peer.outbox.is_online() {
                return Err(reason.to_owned());
            }
            let apart = self.peer.outbox.another();
            self.peer.outbox = Arc::new(apart.map_err(|e| format!("cannot create a queue: {e}"))?);
        }
        log::error!("{reason}");
        self.welcome_by = None;
        self.deltas = None;
        self.last_beat = None;
        let interval = self.context.interval;
        self.life.set_heartbeat(interval);
        self.context.status.update(|status| {
            status.plain = false;
            status.heartbeat_seconds = interval.as_secs();
            status.last_error = Some(reason.to_owned());
        });
        self.peer.outbox.set_online(true);
        self.context.heartbeat.start(interval, &self.peer.outbox);
        Ok(())
    }

    /// Messages flow from now on.
    fn begin(&mut self, welcome: &Welcome, plain: bool) {
        self.welcome_by = None;
        self.deltas = match (welcome.deltas, welcome.nested_deltas) {
            (_, true) => Some(Depth::Nested),
            (true, false) => Some(Depth::Fields),
            (false, false) => None,
        };
        self.last_beat = None;
        let interval = welcome
            .heartbeat_seconds
            .filter(|s| payload::HEARTBEAT_SECONDS.contains(s))
            .map_or(self.context.interval, |s| Duration::from_secs(s.into()));
        self.life.set_heartbeat(interval);
        self.context.status.update(|status| {
            status.plain = plain;
            status.welcomed |= !plain;
            status.name.clone_from(&welcome.name);
            status.attributes.clone_from(&welcome.attributes);
            status.heartbeat_seconds = interval.as_secs();
        });
        if !plain {
            self.context.attributes.set(&welcome.attributes);
        }
        if let Some(name) = &welcome.name {
            log::info!(
                "Poseidon calls this device {name:?}; a heartbeat every {} s",
                interval.as_secs()
            );
        }
        self.feed.begin(welcome.acked);
        self.peer.outbox = Arc::clone(self.context.outbox);
        self.peer.outbox.set_online(true);
        self.context.heartbeat.start(interval, &self.peer.outbox);
    }

    fn obey(&mut self) {
        if self.leaving.is_some() {
            return;
        }
        let (end, reason) = match self.context.control.order() {
            Order::None => {
                self.context.control.forget_retry();
                if !self.context.journal.take_id_changed() {
                    return;
                }
                // Only a hello tells that the agent may have forgotten.
                log::info!("the journal is another one than the server knows: connecting anew");
                (End::Reload, "the agent's journal is another one")
            }
            Order::Stop => (End::Stopped, "the agent stops"),
            Order::Reload => (End::Reload, "the agent's settings have changed"),
        };
        let bye = Bye {
            reason: reason.to_owned(),
        };
        self.leaving = Some(Leaving {
            records: end == End::Stopped,
            end,
            by: Instant::now() + FAREWELL,
            bye: Some(Message::with(payload::BYE, &bye)),
        });
    }

    fn take_leave(&mut self) -> Option<End> {
        // Best effort: the server learns the same from the connection's end.
        if let Some(bye) = self.leaving.as_mut().and_then(|l| l.bye.take()) {
            let _ = self.send(&bye);
        }
        let _ = self.connection.close(1001, "");
        let _ = self.connection.flush();
        self.leaving.take().map(|leaving| leaving.end)
    }

    /// Writes as much as the socket takes, one message at a time, so that control can still overtake.
    fn write(&mut self) -> Result<(), String> {
        loop {
            if !self.connection.flush().map_err(|e| e.to_string())? {
                return Ok(());
            }
            self.feed.flushed();
            let Some(message) = self.next() else {
                return Ok(());
            };
            self.send(&message)?;
            if message.kind == payload::HEARTBEAT && self.life.ask_along(Instant::now()) {
                self.connection.ping().map_err(|e| e.to_string())?;
            }
        }
    }

    /// What to send now: control messages, the heartbeat, records, output.
    fn next(&mut self) -> Option<Message> {
        if let Some(message) = self.peer.outbox.pop_urgent() {
            return Some(self.compact(message));
        }
        let outbox = &self.peer.outbox;
        match self.feed.next(outbox) {
            Turn::Send(message) => Some(message),
            Turn::Idle => outbox.pop_output(),
            Turn::Full => None,
        }
    }

    fn send(&mut self, message: &Message) -> Result<(), String> {
        // Who takes the shortest deltas knows what a reader assumes anyway, so that it need not be said each time.
        let text = if self.deltas == Some(Depth::Nested) && message.kind == payload::HEARTBEAT {
            message.encode_briefly()
        } else {
            message.encode()
        };
        match text {
            Ok(text) => self.connection.send(text).map_err(|e| e.to_string()),
            Err(e) => {
                log::error!("a {} cannot be sent: {e}", message.kind);
                Ok(())
            }
        }
    }

    /// Leaves out of a heartbeat what the server knows already.
    fn compact(&mut self, message: Message) -> Message {
        let Some(depth) = self.deltas.filter(|_| message.kind == payload::HEARTBEAT) else {
            return message;
        };
        let Ok(current) = message.read::<serde_json::Value>() else {
            return message;
        };
        let whole = self.beats.is_multiple_of(WHOLE_EVERY);
        self.beats = self.beats.wrapping_add(1);
        let shorter = match &self.last_beat {
            Some(last) if !whole => Some(delta(last, &current, depth).to_string()),
            _ => None,
        };
        self.last_beat = Some(current);
        Message {
            payload: shorter.or(message.payload),
            ..message
        }
    }
}

/// What a server answers to a type of message that it has never heard of.
fn knows_no_hello(code: &ErrorCode) -> bool {
    matches!(code, ErrorCode::UnknownType | ErrorCode::UnsupportedVersion)
}

/// Marks the connection in the status.
pub fn connected(status: &LinkStatus, url: &str, first: bool) {
    status.enter(State::Connected, |s| {
        s.url = Some(url.to_owned());
        if !first {
            s.reconnects += 1;
        }
    });
}

//! A handle on one live connection: what others may do with it while its session runs.

use super::ask::Asks;
use super::provision::Brought;
use super::welcome::Greeting;
use crate::jobs::lock;
use crate::keyring::Own;
use crate::time::now;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use triton::message::sign::{PublicKey, VALID, acts};
use triton::message::{EncodeError, Message, id};

/// Messages that wait for one agent.
pub const QUEUE: usize = 64;
/// Bytes that wait for one agent.
const QUEUE_BYTES: usize = 4 << 20;
/// Pieces of content that wait for one agent, behind all else.
const CONTENT: usize = 2;

/// An agent that takes nothing for so long is disconnected.
pub(super) const SEND_WAIT: Duration = Duration::from_secs(30);
/// A connection that is asked for a sign of life has so long to give it.
const PROBE: Duration = Duration::from_secs(2);
/// An agent that had no room for a job is left alone for so long, or until one of its jobs ends.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// What binds a connection to the keys of both sides.
#[derive(Debug)]
pub struct Bond {
    /// Poseidon's key, as it was when the device came.
    pub own: Arc<Own>,
    /// The device's key.
    pub device: PublicKey,
    /// That is pinned.
    pub pinned: bool,
    /// Id of the `hello`.
    pub session: String,
    begun: Instant,
    /// Of the last request that was signed.
    number: Mutex<u32>,
}

impl Bond {
    /// By a `hello` that comes now.
    pub(super) fn new(own: Arc<Own>, device: PublicKey, pinned: bool, session: &str) -> Self {
        Self {
            own,
            device,
            pinned,
            session: session.to_owned(),
            begun: Instant::now(),
            number: Mutex::new(0),
        }
    }

    /// Whole seconds since the `hello`.
    fn age(&self) -> u32 {
        u32::try_from(self.begun.elapsed().as_secs()).unwrap_or(u32::MAX)
    }
}

/// What goes out on a connection.
#[derive(Debug)]
pub enum Out {
    /// One message.
    Text(String),
    /// A `welcome`, as it is when its turn comes.
    Welcome(Box<Greeting>),
    /// A further one, since it says something else by now.
    Again,
    /// A message that holds a piece of content.
    Content(String),
    /// A WebSocket ping.
    Ping,
}

/// A handle on one live connection.
pub struct Connection {
    /// Number of the connection, unique in this process.
    pub id: u64,
    /// Hash of the identifier it came with.
    pub identifier: String,
    /// What its device's key has to sign.
    pub challenge: String,
    /// What its `hello` has shown.
    bond: Mutex<Option<Arc<Bond>>>,
    /// Said before the last `bye`.
    last: Mutex<Option<String>>,
    queue: mpsc::Sender<Out>,
    /// Pieces of content, which everything else overtakes.
    content: mpsc::Sender<String>,
    /// Bytes of messages in the queue.
    pub queued: AtomicUsize,
    /// A further `welcome` has its place in the queue, or waits for one.
    telling: AtomicBool,
    /// Seconds between its heartbeats.
    interval: AtomicU32,
    /// Rung when they are others.
    retimed: Notify,
    /// When it was last heard, as the bits of a Unix time.
    heard: AtomicU64,
    /// Pongs that came.
    pongs: AtomicU64,
    /// Rung when one comes, for those who wait for a sign of life.
    news: Notify,
    /// Nothing is read from it any more.
    ended: AtomicBool,
    /// Rung when there may be room for a queued job.
    pub room: Notify,
    /// Until then the agent has none.
    busy_until: Mutex<Option<Instant>>,
    /// A task hands it its jobs.
    pub(super) delivering: AtomicBool,
    /// What it was brought of what is kept for its identifier.
    pub(super) scripts: Brought,
    pub(super) schedule: Brought,
    /// What it was asked, and has not answered yet.
    pub(super) asks: Asks,
    reason: Mutex<Option<&'static str>>,
    closing: Notify,
}

/// What waits for a connection, in the hands of its session.
pub struct Outbox {
    /// Goes first.
    pub queue: mpsc::Receiver<Out>,
    /// Goes when the queue is empty.
    pub content: mpsc::Receiver<String>,
}

impl Outbox {
    /// What goes out next; `None` at the end.
    pub async fn next(&mut self) -> Option<Out> {
        tokio::select! {
            biased;
            out = self.queue.recv() => out,
            Some(text) = self.content.recv() => Some(Out::Content(text)),
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.content.is_empty()
    }
}

/// Why a message was not handed to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// There is no connection.
    Offline,
    /// The agent does not take what already waits.
    Busy,
}

impl Connection {
    /// A connection and what its session empties; `interval` counts until its `hello`.
    pub(super) fn new(id: u64, identifier: &str, interval: u32) -> (Self, Outbox) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (content, pieces) = mpsc::channel(CONTENT);
        let connection = Self {
            id,
            identifier: identifier.to_owned(),
            challenge: id::random(),
            bond: Mutex::default(),
            last: Mutex::default(),
            queue,
            content,
            queued: AtomicUsize::new(0),
            telling: AtomicBool::new(false),
            interval: AtomicU32::new(interval),
            retimed: Notify::new(),
            heard: AtomicU64::new(now().to_bits()),
            pongs: AtomicU64::new(0),
            news: Notify::new(),
            ended: AtomicBool::new(false),
            room: Notify::new(),
            busy_until: Mutex::default(),
            delivering: AtomicBool::new(false),
            scripts: Brought::default(),
            schedule: Brought::default(),
            asks: Asks::default(),
            reason: Mutex::new(None),
            closing: Notify::new(),
        };
        let outbox = Outbox {
            queue: waiting,
            content: pieces,
        };
        (connection, outbox)
    }

    /// Seconds between its heartbeats, by which its silence is judged.
    pub fn interval(&self) -> u32 {
        self.interval.load(Ordering::Relaxed)
    }

    /// It is told so.
    pub(super) fn set_interval(&self, seconds: u32) {
        if self.interval.swap(seconds, Ordering::Relaxed) != seconds {
            self.retimed.notify_one();
        }
    }

    /// Waits until its interval is another one; for its session only.
    pub(super) async fn retimed(&self) {
        self.retimed.notified().await;
    }

    /// When it was last heard.
    pub fn heard(&self) -> f64 {
        f64::from_bits(self.heard.load(Ordering::Relaxed))
    }

    /// It was heard now.
    pub fn hear(&self) {
        self.heard.store(now().to_bits(), Ordering::Relaxed);
    }

    /// It answered a ping.
    pub(super) fn pong(&self) {
        self.pongs.fetch_add(1, Ordering::Relaxed);
        self.news.notify_waiters();
    }

    /// Whether somebody is at the other end. Only an answer says so: other frames may have been on their way for long,
    /// and be all that is left of a connection that its agent has given up.
    pub async fn is_alive(&self) -> bool {
        let before = self.pongs.load(Ordering::Relaxed);
        self.ping();
        let answer = async {
            loop {
                let news = self.news.notified();
                if self.has_ended() {
                    return false;
                }
                if self.pongs.load(Ordering::Relaxed) != before {
                    return true;
                }
                news.await;
            }
        };
        timeout(PROBE, answer).await.unwrap_or(false)
    }

    /// Nothing is read from it any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.asks.end();
        self.scripts.look_again();
        self.schedule.look_again();
        self.news.notify_waiters();
        self.room.notify_one();
    }

    /// Whether nothing is read from it any more.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The agent had no room for a job.
    pub(super) fn set_busy(&self) {
        *lock(&self.busy_until) = Some(Instant::now() + BUSY_WAIT);
    }

    /// One of its jobs has ended.
    pub(super) fn relieve(&self) {
        *lock(&self.busy_until) = None;
        self.room.notify_one();
    }

    /// Until when the agent has no room.
    pub(super) fn busy_until(&self) -> Option<Instant> {
        lock(&self.busy_until).filter(|until| *until > Instant::now())
    }

    /// Its device has shown a key.
    pub(super) fn set_bond(&self, bond: Option<Bond>) {
        *lock(&self.bond) = bond.map(Arc::new);
    }

    /// What its device has shown.
    pub fn bond(&self) -> Option<Arc<Bond>> {
        lock(&self.bond).clone()
    }

    /// Hands on a message without waiting, signed where it acts and the device has a key.
    pub fn send_message(&self, message: &Message) -> Result<(), SendError> {
        // What cannot be written was refused before it became a job.
        let failed = |_: EncodeError| SendError::Offline;
        let Some(bond) = self.bond().filter(|_| acts(&message.kind)) else {
            return self.send(message.encode().map_err(failed)?);
        };
        // Held until it is in the queue: their order is that of their numbers.
        let mut number = lock(&bond.number);
        *number = number.saturating_add(1);
        let mut signed = message.clone();
        let until = bond.age().saturating_add(VALID);
        let key = &bond.own.key;
        key.sign_act(&mut signed, &bond.session, *number, until);
        self.send(signed.encode().map_err(failed)?)
    }

    /// Hands on a message without waiting.
    pub fn send(&self, text: String) -> Result<(), SendError> {
        let size = text.len();
        if self.queued.fetch_add(size, Ordering::Relaxed) > QUEUE_BYTES {
            self.queued.fetch_sub(size, Ordering::Relaxed);
            return Err(SendError::Busy);
        }
        self.queue.try_send(Out::Text(text)).map_err(|e| {
            self.queued.fetch_sub(size, Ordering::Relaxed);
            match e {
                mpsc::error::TrySendError::Full(_) => SendError::Busy,
                mpsc::error::TrySendError::Closed(_) => SendError::Offline,
            }
        })
    }

    /// Welcomes it, before anything else is said to it.
    pub(super) fn greet(&self, greeting: Box<Greeting>) {
        if self.queue.try_send(Out::Welcome(greeting)).is_err() {
            self.close("it does not read");
        }
    }

    /// It is to hear what has changed, behind what waits by now. That may be more than there is room for, which is no
    /// reason to end a connection: one place is waited for, and whatever changes until its turn comes is told with it.
    pub(super) fn tell_again(&self) {
        if self.telling.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(out)) = self.queue.try_send(Out::Again) {
            let queue = self.queue.clone();
            tokio::spawn(async move { queue.send(out).await });
        }
    }

    /// It hears now what holds: what changes from here on is another matter.
    pub(super) fn tells(&self) {
        self.telling.swap(false, Ordering::AcqRel);
    }

    /// Hands on a message; waits while the queue is full.
    pub async fn send_waiting(&self, message: &Message) {
        let Ok(text) = message.encode() else {
            log::error!("a {} message cannot be written", message.kind);
            return;
        };
        self.queued.fetch_add(text.len(), Ordering::Relaxed);
        let sent = timeout(SEND_WAIT, self.queue.send(Out::Text(text))).await;
        if sent.is_err() {
            self.close("it does not read");
        }
    }

    /// Hands on a piece of content; waits for as long as the agent does not take what is before it. False where the
    /// connection is over.
    pub async fn send_content(&self, text: String) -> bool {
        self.content.send(text).await.is_ok()
    }

    /// Asks for a sign of life. A queue that is full says enough by itself.
    pub fn ping(&self) {
        let _ = self.queue.try_send(Out::Ping);
    }

    /// Ends the connection with this message and a `bye`.
    pub(super) fn close_with(&self, message: &Message, reason: &'static str) {
        *lock(&self.last) = message.encode().ok();
        self.close(reason);
    }

    /// What is to be said before the `bye`.
    pub(super) fn take_last(&self) -> Option<String> {
        lock(&self.last).take()
    }

    /// Ends the connection with a `bye`.
    pub fn close(&self, reason: &'static str) {
        lock(&self.reason).get_or_insert(reason);
        self.closing.notify_one();
    }

    /// Waits for [`Self::close`].
    pub async fn closed(&self) -> &'static str {
        loop {
            if let Some(reason) = *lock(&self.reason) {
                return reason;
            }
            self.closing.notified().await;
        }
    }
}

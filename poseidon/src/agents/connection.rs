//! A handle on one live connection: what others may do with it while its session runs.

use crate::jobs::lock;
use crate::time::now;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::{Notify, mpsc};
use triton::message::Message;

/// Messages that wait for one agent.
pub const QUEUE: usize = 64;
/// Bytes that wait for one agent.
const QUEUE_BYTES: usize = 4 << 20;

/// An agent that takes nothing for so long is disconnected.
const SEND_WAIT: std::time::Duration = std::time::Duration::from_secs(30);

/// What goes out on a connection.
#[derive(Debug)]
pub enum Out {
    /// One message.
    Text(String),
    /// A WebSocket ping.
    Ping,
}

/// A handle on one live connection.
pub struct Connection {
    /// Number of the connection, unique in this process.
    pub id: u64,
    /// Hash of the identifier it came with.
    pub identifier: String,
    queue: mpsc::Sender<Out>,
    /// Bytes of messages in the queue.
    pub queued: AtomicUsize,
    /// When it was last heard, as the bits of a Unix time.
    heard: AtomicU64,
    reason: Mutex<Option<&'static str>>,
    closing: Notify,
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
    /// A connection and the queue that its session empties.
    pub(super) fn new(id: u64, identifier: &str) -> (Self, mpsc::Receiver<Out>) {
        let (queue, outbox) = mpsc::channel(QUEUE);
        let connection = Self {
            id,
            identifier: identifier.to_owned(),
            queue,
            queued: AtomicUsize::new(0),
            heard: AtomicU64::new(now().to_bits()),
            reason: Mutex::new(None),
            closing: Notify::new(),
        };
        (connection, outbox)
    }

    /// When it was last heard.
    pub fn heard(&self) -> f64 {
        f64::from_bits(self.heard.load(Ordering::Relaxed))
    }

    /// It was heard now.
    pub fn hear(&self) {
        self.heard.store(now().to_bits(), Ordering::Relaxed);
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

    /// Hands on a message; waits while the queue is full.
    pub async fn send_waiting(&self, message: &Message) {
        let Ok(text) = message.encode() else {
            log::error!("a {} message cannot be written", message.kind);
            return;
        };
        self.queued.fetch_add(text.len(), Ordering::Relaxed);
        let sent = tokio::time::timeout(SEND_WAIT, self.queue.send(Out::Text(text))).await;
        if sent.is_err() {
            self.close("it does not read");
        }
    }

    /// Asks for a sign of life. A queue that is full says enough by itself.
    pub fn ping(&self) {
        let _ = self.queue.try_send(Out::Ping);
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

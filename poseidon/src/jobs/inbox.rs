//! Messages of a job that somebody waits for, such as the pieces of a file.

use super::lock;
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::Notify;
use triton::message::Message;

/// Messages that may wait: more than anybody asks for at a time.
const MESSAGES: usize = 128;
/// Bytes of them.
const BYTES: usize = 8 << 20;

/// What came for the one reader of a job.
pub struct Inbox {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    open: bool,
    messages: VecDeque<Message>,
    bytes: usize,
    /// The agent has come back.
    rung: bool,
}

impl Inbox {
    /// `open` says that somebody is going to read it.
    pub(super) fn new(open: bool) -> Self {
        let state = State {
            open,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            news: Notify::new(),
        }
    }

    /// Takes a message; false where nobody reads, or more waits than anybody can have asked for.
    pub fn put(&self, message: Message) -> bool {
        let mut state = lock(&self.state);
        let bytes = message.payload.as_ref().map_or(0, String::len);
        let room = state.messages.len() < MESSAGES && state.bytes + bytes <= BYTES;
        if !state.open || !room {
            return false;
        }
        state.bytes += bytes;
        state.messages.push_back(message);
        drop(state);
        self.news.notify_one();
        true
    }

    /// The oldest message.
    pub fn take(&self) -> Option<Message> {
        let mut state = lock(&self.state);
        let message = state.messages.pop_front()?;
        state.bytes -= message.payload.as_ref().map_or(0, String::len);
        Some(message)
    }

    /// Nobody reads it any more.
    pub fn close(&self) {
        *lock(&self.state) = State::default();
    }

    /// Whether somebody reads it.
    pub fn is_open(&self) -> bool {
        lock(&self.state).open
    }

    /// Tells the reader that the agent has come back.
    pub fn ring(&self) {
        lock(&self.state).rung = true;
        self.news.notify_one();
    }

    /// Whether that was told since the last time.
    pub fn was_rung(&self) -> bool {
        std::mem::take(&mut lock(&self.state).rung)
    }

    /// Returns when a message came, or the agent has come back, since the last time.
    pub async fn news(&self) {
        self.news.notified().await;
    }
}

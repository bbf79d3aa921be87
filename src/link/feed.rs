//! From the journal to Poseidon: which record is sent when, and what counts as stored.
//!
//! Records leave in the order of their sequence, those of jobs as the messages of their conversation. What is on its way
//! is bounded, by number and by bytes; only what the server has acknowledged may be forgotten. A server that
//! acknowledges nothing gets each record once: what has left for the socket counts as stored.

use crate::job::{kind_of, travels};
use crate::journal::{Journal, shorten};
use crate::message::Message;
use crate::message::payload::{self, History, Record, code};
use crate::outbox::Outbox;
use std::collections::VecDeque;

/// Most records on their way.
pub const WINDOW: usize = 256;
/// Bytes on their way behind which no more are sent.
const WINDOW_BYTES: usize = 256 * 1024;
/// Bytes of JSON in one `history`; one record more than that travels alone.
const HISTORY_BYTES: usize = 64 * 1024;

/// What the feed has to send now.
#[derive(Debug)]
pub enum Turn {
    /// This.
    Send(Message),
    /// Nothing; output has its turn.
    Idle,
    /// Nothing until something is acknowledged, and no output either: it may be of a job whose `accepted` has not left
    /// yet.
    Full,
}

/// A message on its way.
#[derive(Debug)]
struct Sent {
    /// Its last record.
    through: u64,
    records: usize,
    bytes: usize,
}

/// One connection's place in the journal.
#[derive(Debug)]
pub struct Feed<'a> {
    journal: &'a Journal,
    /// None until messages flow, then whether the server acknowledges.
    acknowledges: Option<bool>,
    /// The last record that was sent.
    cursor: u64,
    /// The one behind it, if it was read already.
    ahead: Option<Record>,
    sent: VecDeque<Sent>,
    records: usize,
    bytes: usize,
    /// Bytes of one `events`; one event more than that travels alone.
    event_bytes: usize,
}

impl<'a> Feed<'a> {
    /// Sends nothing yet. Messages with events have up to `event_bytes`.
    pub fn new(journal: &'a Journal, event_bytes: usize) -> Self {
        Self {
            journal,
            event_bytes,
            acknowledges: None,
            cursor: 0,
            ahead: None,
            sent: VecDeque::new(),
            records: 0,
            bytes: 0,
        }
    }

    /// Messages flow from now on. `acked` is the last record that the server says it has; none where it acknowledges
    /// nothing; a later welcome that leaves it out changes nothing.
    pub fn begin(&mut self, acked: Option<u64>) {
        if self.acknowledges.is_some() && acked.is_none() {
            return;
        }
        let cursor = match acked {
            Some(acked) => self.journal.connected(acked),
            None => self.journal.acked(),
        };
        *self = Self {
            acknowledges: Some(acked.is_some()),
            cursor,
            ..Self::new(self.journal, self.event_bytes)
        };
    }

    /// The server has stored everything up to `through`. It is not believed what it cannot know.
    pub fn acknowledged(&mut self, through: u64) {
        if self.acknowledges != Some(true) {
            log::debug!("an ack of a server that acknowledges nothing is not heeded");
            return;
        }
        if through > self.cursor {
            log::warn!(
                "the server acknowledges {through}, {} is the last that was sent to it",
                self.cursor
            );
        }
        self.settle(through.min(self.cursor));
    }

    /// All that was sent has left for the socket.
    pub fn flushed(&mut self) {
        if self.acknowledges == Some(false) && !self.sent.is_empty() {
            self.settle(self.cursor);
        }
    }

    fn settle(&mut self, through: u64) {
        while let Some(first) = self.sent.front()
            && first.through <= through
        {
            self.records -= first.records;
            self.bytes -= first.bytes;
            self.sent.pop_front();
        }
        self.journal.acknowledge(through);
    }

    /// Whether everything is sent and stored.
    pub fn is_done(&mut self) -> bool {
        self.acknowledges.is_none() || (self.sent.is_empty() && self.peek().is_none())
    }

    /// What to send now. A job's end, and what is behind it, waits while `outbox` holds output of its conversation.
    pub fn next(&mut self, outbox: &Outbox) -> Turn {
        if self.acknowledges.is_none() {
            return Turn::Idle;
        }
        let full = self.records >= WINDOW || self.bytes >= WINDOW_BYTES;
        let Some(record) = self.peek() else {
            return Turn::Idle;
        };
        if full {
            return Turn::Full;
        }
        if code::is_end(record.code) && outbox.has_output_of(conversation(record)) {
            return Turn::Idle;
        }
        let job = code::is_job(record.code);
        let Some(mut record) = self.ahead.take() else {
            return Turn::Idle;
        };
        self.cursor = record.id;
        // No connection may die of a record: it would be sent again over each of them, and nothing behind it ever.
        if job && !travels(record.data.get()) {
            log::warn!(
                "record {} is too long for a message, and travels shortened",
                record.id
            );
            shorten(&mut record);
        }
        let (message, records) = if job {
            (of_job(&record), 1)
        } else {
            self.history(record)
        };
        let bytes = message.payload.as_ref().map_or(0, String::len);
        self.sent.push_back(Sent {
            through: self.cursor,
            records,
            bytes,
        });
        self.records += records;
        self.bytes += bytes;
        Turn::Send(message)
    }

    fn peek(&mut self) -> Option<&Record> {
        if self.ahead.is_none() {
            self.ahead = self.journal.next(self.cursor);
        }
        self.ahead.as_ref()
    }

    /// A message with `first` and those behind it that are no job's: events, or all that are none.
    fn history(&mut self, first: Record) -> (Message, usize) {
        let events = first.code == code::EVENT;
        let most = if events {
            self.event_bytes
        } else {
            HISTORY_BYTES
        };
        let mut bytes = size(&first);
        let mut records = vec![first];
        while self.records + records.len() < WINDOW
            && let Some(next) = self.peek()
            && !code::is_job(next.code)
            && (next.code == code::EVENT) == events
            && bytes + size(next) <= most
            && let Some(next) = self.ahead.take()
        {
            bytes += size(&next);
            self.cursor = next.id;
            records.push(next);
        }
        let count = records.len();
        if events {
            return (of_events(&records, self.journal.last()), count);
        }
        let history = History {
            records,
            last: self.journal.last(),
            more: false,
        };
        (Message::with(payload::HISTORY, &history), count)
    }
}

fn conversation(record: &Record) -> &str {
    record.conversation.as_ref().unwrap_or(&record.token)
}

/// About what a record takes in a message.
fn size(record: &Record) -> usize {
    /// Its numbers and names.
    const FRAME: usize = 160;
    FRAME + conversation(record).len() + record.token.len() + record.data.get().len()
}

/// A record about a job as the message of its conversation: the stored object, and what makes it a record.
fn of_job(record: &Record) -> Message {
    let own = serde_json::json!({
        "sequence": record.id,
        "etime": record.etime,
        "ctime": record.ctime,
    });
    Message {
        conversation_id: conversation(record).to_owned(),
        payload: Some(payload::carriable(spliced(&own, record))),
        ..Message::new(kind_of(record))
    }
}

/// Events as one message.
fn of_events(records: &[Record], last: u64) -> Message {
    let mut text = "{\"events\":[".to_owned();
    for (n, record) in records.iter().enumerate() {
        let own = serde_json::json!({
            "sequence": record.id,
            "time": record.etime,
            "stored": record.ctime,
        });
        text.push_str(if n > 0 { "," } else { "" });
        text.push_str(&spliced(&own, record));
    }
    text.push_str("],\"last\":");
    text.push_str(&last.to_string());
    text.push('}');
    Message {
        payload: Some(payload::carriable(text)),
        ..Message::new(payload::EVENTS)
    }
}

/// The members of `own`, and those of what is stored. Both are objects; not read, since to read a whole result and to write it
/// again would cost twice its memory.
fn spliced(own: &serde_json::Value, record: &Record) -> String {
    let own = own.to_string();
    let data = record.data.get().trim();
    let inner = data.strip_prefix('{').and_then(|d| d.strip_suffix('}'));
    let inner = inner.map_or("", str::trim);
    let head = own.trim_end_matches('}');
    let separator = if inner.is_empty() { "" } else { "," };
    format!("{head}{separator}{inner}}}")
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;

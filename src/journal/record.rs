//! What the journal knows about the content of records.

use super::line::LINE_LIMIT;
use crate::message::id;
use crate::message::payload::{self, ErrorCode, HistoryPut, JobResult, Record, Status, Tail, code};
use crate::sys::clock;
use serde_json::value::RawValue;

/// Longest data of a stored value, in bytes of JSON.
const VALUE_LIMIT: usize = 64 * 1024;
/// Longest token, in characters, as for the id of a message.
const TOKEN_LIMIT: usize = 128;
/// What a line has besides token, conversation and data, at most.
const LINE_REST: usize = 220;
/// A line that counts dropped events is shorter than this.
pub const LOSS_BYTES: usize = 320;

/// A record without its number.
#[derive(Debug)]
pub struct Draft {
    pub token: String,
    pub code: u32,
    pub etime: f64,
    pub conversation: Option<String>,
    pub data: Box<RawValue>,
}

impl Draft {
    /// What happens now. `data` is JSON; anything else is kept as text.
    pub fn new(token: &str, code: u32, conversation: Option<&str>, data: String) -> Self {
        Self {
            token: token.to_owned(),
            code,
            etime: milliseconds(clock::trusted()),
            conversation: conversation.filter(|c| *c != token).map(str::to_owned),
            data: raw(data),
        }
    }

    /// A value to be stored, if it may be.
    pub fn value(put: &HistoryPut) -> Result<Self, payload::Error> {
        let invalid = |message: &str| Err(payload::Error::new(ErrorCode::Invalid, message));
        let code = put.code.unwrap_or(code::VALUE);
        if code < 100 {
            return invalid("code must be above 99: the others are the agent's own");
        }
        if code == code::DROPPED {
            return invalid("code must not be 102: the journal itself counts dropped events by it");
        }
        if let Some(token) = &put.token
            && (!(1..=TOKEN_LIMIT).contains(&token.chars().count())
                || token.chars().any(char::is_control))
        {
            return invalid(
                "token must have 1 to 128 characters, none of them a control character",
            );
        }
        if put.etime.is_some_and(|t| !t.is_finite()) {
            return invalid("etime must be a Unix time");
        }
        let data = put.data.to_string();
        if payload::depth(&data) > payload::DATA_DEPTH {
            return Err(payload::Error::new(
                ErrorCode::Invalid,
                format!("data is nested deeper than {} levels", payload::DATA_DEPTH),
            ));
        }
        if data.len() > VALUE_LIMIT {
            let message = format!(
                "data has {} bytes of JSON; at most {VALUE_LIMIT} are stored",
                data.len()
            );
            return Err(payload::Error::new(ErrorCode::TooLarge, message));
        }
        let token = put.token.clone().unwrap_or_else(id::random);
        let draft = Self::new(&token, code, None, data);
        Ok(Self {
            etime: put.etime.unwrap_or(draft.etime),
            ..draft
        })
    }

    /// An event; `data` is JSON.
    pub fn event(etime: f64, data: String) -> Self {
        let draft = Self::new(&id::random(), code::EVENT, None, data);
        Self {
            etime: milliseconds(etime),
            ..draft
        }
    }

    /// So many events were dropped.
    pub fn loss(events: u64) -> Self {
        let data = serde_json::json!({ "events": events }).to_string();
        Self::new(&id::random(), code::DROPPED, None, data)
    }

    /// The end of a job that died with its agent.
    pub fn interrupted(accepted: &Record) -> Self {
        let message = "the agent or the device stopped before the job had ended; if only the agent did, \
                       the job's processes may still run";
        let result = JobResult::without_process(Status::Interrupted, Some(message));
        let data = serde_json::to_string(&result).unwrap_or_default();
        let conversation = accepted.conversation.as_deref();
        Self::new(&accepted.token, code::FAILED, conversation, data)
    }

    /// Bytes of its line, at most.
    pub fn bound(&self) -> usize {
        line_bound(
            &self.token,
            self.conversation.as_deref(),
            self.data.get().len(),
        )
    }

    /// Gives it its number.
    pub fn record(self, id: u64) -> Record {
        Record {
            id,
            token: self.token,
            code: self.code,
            etime: self.etime,
            ctime: milliseconds(clock::trusted()),
            conversation: self.conversation,
            data: self.data,
        }
    }

    /// Makes the end of a job smaller: what happened stays, the tails of its output go.
    pub fn cut(&mut self) {
        if let Some(data) = without_bulk(self.data.get(), "the tails were cut: the journal is full")
        {
            self.data = data;
        }
    }

    /// Whether a line can hold it at all.
    pub fn is_huge(&self) -> bool {
        self.bound() > LINE_LIMIT
    }
}

/// Makes the record of a job smaller for an answer that cannot hold it. A value stays whole: without its bulk nothing of
/// it would be left.
pub fn shorten(record: &mut Record) {
    if code::is_job(record.code)
        && let Some(data) = without_bulk(
            record.data.get(),
            "the tails were left out for want of room",
        )
    {
        record.data = data;
    }
}

/// The end of a job without the tails of its output; `None` where it is short already.
fn without_bulk(data: &str, note: &str) -> Option<Box<RawValue>> {
    let data = match payload::from_json::<JobResult>(data) {
        Ok(mut result) => {
            result.tail = Tail::default();
            let message = result.message.as_deref().map(|m| beginning(m, 256));
            result.message = Some(match message {
                Some(message) => format!("{message}; {note}"),
                None => note.to_owned(),
            });
            serde_json::to_string(&result)
        }
        // An `error`, which is short unless someone made it long.
        Err(_) if data.len() <= 1_024 => return None,
        Err(_) => {
            let message = format!("why it failed was too long to keep; {note}");
            serde_json::to_string(&payload::Error::new(ErrorCode::Io, message))
        }
    };
    data.ok().map(raw)
}

/// The first `bytes` of a text, whole characters only.
pub fn beginning(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// JSON without line breaks, which are white space there; what is no JSON becomes a JSON string.
fn raw(mut data: String) -> Box<RawValue> {
    if data.contains(['\n', '\r']) {
        data = data.replace(['\n', '\r'], " ");
    }
    RawValue::from_string(data.clone())
        .or_else(|_| serde_json::value::to_raw_value(&data))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// More digits say nothing and cost flash.
fn milliseconds(unix: f64) -> f64 {
    (unix * 1000.0).round() / 1000.0
}

/// Bytes of a line, at most, by what it holds.
pub fn line_bound(token: &str, conversation: Option<&str>, data: usize) -> usize {
    // In JSON a quote or a backslash takes two bytes, a control character six.
    let text = |text: &str| {
        text.bytes()
            .map(|b| match b {
                b'"' | b'\\' => 2,
                0..0x20 => 6,
                _ => 1,
            })
            .sum::<usize>()
    };
    LINE_REST + text(token) + conversation.map_or(0, text) + data
}

/// Whether it is dropped where nothing else can be. Records that count dropped events are summed up.
pub fn is_event(code: u32) -> bool {
    matches!(code, code::EVENT | code::DROPPED)
}

/// Events that made room for something else.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lost {
    /// Dropped now.
    pub now: u64,
    /// Dropped before, by the records that said so and went as well.
    pub before: u64,
}

impl std::ops::AddAssign for Lost {
    fn add_assign(&mut self, other: Self) {
        self.now += other.now;
        self.before = self.before.saturating_add(other.before);
    }
}

impl Lost {
    /// Counts a record that goes.
    pub fn add(&mut self, record: &Record) {
        #[derive(serde::Deserialize)]
        struct Data {
            events: u64,
        }
        match record.code {
            code::EVENT => self.now += 1,
            code::DROPPED => {
                let data = serde_json::from_str::<Data>(record.data.get());
                self.before = self
                    .before
                    .saturating_add(data.map_or(0, |data| data.events));
            }
            _ => {}
        }
    }

    /// What the new record says.
    pub fn all(self) -> u64 {
        self.now.saturating_add(self.before)
    }
}

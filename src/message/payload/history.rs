//! The payloads of the journal (`docs/protocol.md` section 5).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Record codes.
pub mod code {
    /// A job was accepted.
    pub const ACCEPTED: u32 = 0;
    /// It ended well.
    pub const SUCCEEDED: u32 = 1;
    /// It ended, not well.
    pub const FAILED: u32 = 2;
    /// An event.
    pub const EVENT: u32 = 101;
    /// Events were dropped for want of room.
    pub const DROPPED: u32 = 102;
    /// Runs of a schedule's entry were skipped.
    pub const SKIPPED: u32 = 103;
    /// A stored value that names no code.
    pub const VALUE: u32 = 200;

    /// Whether records with this code are about jobs.
    pub fn is_job(code: u32) -> bool {
        code <= FAILED
    }

    /// Whether they say that a job has ended.
    pub fn is_end(code: u32) -> bool {
        matches!(code, SUCCEEDED | FAILED)
    }
}

/// How deep the data of a record may be nested. Readers of JSON give up at some depth (serde's at 128), and one record
/// must not make a whole list unreadable.
pub const DATA_DEPTH: usize = 64;

/// How deep lists and objects of a JSON text are nested.
pub fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut text, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b'[' | b'{' if !text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// One record of the journal, in its file and on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Its sequence: grows, and never repeats on an instance.
    pub id: u64,
    /// What it is about.
    pub token: String,
    /// See [`code`].
    pub code: u32,
    /// When it happened, Unix time.
    pub etime: f64,
    /// When it was stored, Unix time.
    pub ctime: f64,
    /// The conversation of the request, where that is not the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// What the code says.
    pub data: Box<RawValue>,
}

/// `ack`, Poseidon to agent: all records up to here are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Ack {
    pub through: u64,
}

/// `history.get`: at least one of the first five; all that are given must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryGet {
    /// Equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// At or after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctime: Option<f64>,
    /// At or after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etime: Option<f64>,
    /// Greater.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Most records of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// `history`: the answer to `history.get`, and how values travel to Poseidon.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Oldest first.
    pub records: Vec<Record>,
    /// The last sequence of the journal.
    pub last: u64,
    /// More records than these fit the request.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// `history.put`: stores a value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct HistoryPut {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etime: Option<f64>,
    pub data: serde_json::Value,
}

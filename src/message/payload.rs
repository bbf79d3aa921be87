//! The payloads of the message types, named as on the wire (`docs/protocol.md` sections 2 to 4).
//!
//! Times are Unix times in seconds, whole or with a fraction. A field that is absent is not sent.

mod data;
mod files;
mod health;
mod history;
mod job;
mod json;
mod loose;
mod session;
mod tree;
mod unreadable;
mod xml;

pub use data::{DataRequest, DataResponse, Manifest, PIECE, ScriptFile};
pub use files::{ENTRIES_LIMIT, Entries, Entry, EntryKind, FileRequest};
pub use health::{AgentHealth, FileSystem, Heartbeat, Interface, Metric, Temperature};
pub use history::{Ack, DATA_DEPTH, History, HistoryGet, HistoryPut, Record, code, depth};
pub use job::{
    Accepted, Bounds, Cancel, Command, JobResult, Output, OutputMode, Parameters, Progress, Status,
    Stream, Tail,
};
pub use session::{
    AgentVersion, Bye, HEARTBEAT_SECONDS, Hello, JournalState, PluginState, Revision, Welcome,
};
pub use unreadable::Unreadable;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use tree::Tree;

/// Names of the message types.
pub const HELLO: &str = "hello";
#[allow(missing_docs)]
pub const WELCOME: &str = "welcome";
#[allow(missing_docs)]
pub const BYE: &str = "bye";
#[allow(missing_docs)]
pub const HEARTBEAT: &str = "heartbeat";
#[allow(missing_docs)]
pub const COMMAND: &str = "command";
#[allow(missing_docs)]
pub const CANCEL: &str = "cancel";
#[allow(missing_docs)]
pub const ACCEPTED: &str = "accepted";
#[allow(missing_docs)]
pub const OUTPUT: &str = "output";
#[allow(missing_docs)]
pub const PROGRESS: &str = "progress";
#[allow(missing_docs)]
pub const RESULT: &str = "result";
#[allow(missing_docs)]
pub const ERROR: &str = "error";
#[allow(missing_docs)]
pub const ACK: &str = "ack";
#[allow(missing_docs)]
pub const HISTORY: &str = "history";
#[allow(missing_docs)]
pub const HISTORY_GET: &str = "history.get";
#[allow(missing_docs)]
pub const HISTORY_PUT: &str = "history.put";
/// Stores one event, or several.
pub const EVENT: &str = "event";
/// Events on their way to Poseidon.
pub const EVENTS: &str = "events";
/// Adds a number to the heartbeats.
pub const METRIC: &str = "metric";
/// Replaces the entries of the schedule that Poseidon has set.
pub const SCHEDULE_SET: &str = "schedule.set";
/// Asks for all entries; answered by a message of the same type.
pub const SCHEDULE_LIST: &str = "schedule.list";
#[allow(missing_docs)]
pub const AGENT_UPDATE: &str = "agent.update";
#[allow(missing_docs)]
pub const SCRIPT: &str = "script";
#[allow(missing_docs)]
pub const DATA_REQUEST: &str = "data.request";
#[allow(missing_docs)]
pub const DATA_RESPONSE: &str = "data.response";
#[allow(missing_docs)]
pub const DATA_OFFER: &str = "data.offer";
#[allow(missing_docs)]
pub const FILE_PUT: &str = "file.put";
#[allow(missing_docs)]
pub const FILE_GET: &str = "file.get";
#[allow(missing_docs)]
pub const FILE_LIST: &str = "file.list";
#[allow(missing_docs)]
pub const DIRECTORY_PUT: &str = "directory.put";
#[allow(missing_docs)]
pub const SCRIPTS_SYNC: &str = "scripts.sync";
#[allow(missing_docs)]
pub const ENGINE_COMMAND: &str = "engine.command";
#[allow(missing_docs)]
pub const AGENT_RELOAD: &str = "agent.reload";
#[allow(missing_docs)]
pub const AGENT_RESTART: &str = "agent.restart";
#[allow(missing_docs)]
pub const AGENT_EXIT: &str = "agent.exit";
#[allow(missing_docs)]
pub const SYSTEM_REBOOT: &str = "system.reboot";
#[allow(missing_docs)]
pub const SYSTEM_SHUTDOWN: &str = "system.shutdown";
/// Over the local socket: what `triton trust` has changed is to be read.
pub const TRUST_RELOAD: &str = "trust.reload";
/// Asks for all plugins; answered by a message of the same type.
pub const MODULE_LIST: &str = "module.list";
/// Ends an external plugin.
pub const MODULE_KILL: &str = "module.kill";
/// Starts it again.
pub const MODULE_START: &str = "module.start";
/// The code of an `error` where there is no connection to Poseidon.
pub const OFFLINE: &str = "offline";
/// Asks the agent for its own state; answered by a message of the same type.
pub const AGENT_STATUS: &str = "agent.status";

/// Why a payload cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadError(Unreadable);

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the payload cannot be read: {}", self.0)
    }
}

impl std::error::Error for PayloadError {}

/// Room that a payload gets where nobody says more.
pub(super) const SMALL: usize = 128;

/// JSON of a payload.
///
/// # Panics
/// Never for the types of this module: they hold no maps with keys other than text and no failing serializer.
pub(crate) fn to_json<T: Serialize>(payload: &T) -> String {
    to_json_of(payload, SMALL)
}

/// The same with room for `size` bytes from the start: what grows to that by itself is copied several times over.
pub(crate) fn to_json_of<T: Serialize>(payload: &T, size: usize) -> String {
    let mut json = Vec::with_capacity(size);
    serde_json::to_writer(&mut json, payload).expect("payload types are plain data");
    carriable(String::from_utf8(json).expect("JSON is UTF-8"))
}

/// JSON with references in place of the two characters that JSON may hold as they are and XML cannot carry.
pub(crate) fn carriable(json: String) -> String {
    if !super::text::has_noncharacters(&json) {
        return json;
    }
    // They can stand in a text only, where a reference means the same.
    json.replace('\u{FFFE}', "\\ufffe")
        .replace('\u{FFFF}', "\\uffff")
}

/// Reads a payload: XML where it begins with `<`, else JSON.
pub(super) fn from_text<T: DeserializeOwned>(text: Option<&str>) -> Result<T, PayloadError> {
    let read = parse(text).and_then(T::deserialize);
    read.map_err(PayloadError)
}

// What is the same for all types is not made for each.
#[inline(never)]
fn parse(text: Option<&str>) -> Result<Tree<'_>, Unreadable> {
    let text = trimmed(text);
    if text.starts_with('<') {
        return xml::parse(text);
    }
    json::parse(object(text, "a JSON object or XML")?, json::limit(text))
}

/// Reads a payload that keeps JSON as it is written ([`Record::data`]), which no tree does.
pub(super) fn from_json_text<T: DeserializeOwned>(text: Option<&str>) -> Result<T, PayloadError> {
    let text = object(trimmed(text), "a JSON object").map_err(PayloadError)?;
    serde_json::from_str(text).map_err(|e| PayloadError(Unreadable::custom(e)))
}

/// Reads JSON that is no peer's payload, or was one that had been read: not more than its length limits it.
pub fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Unreadable> {
    json::parse(text, usize::MAX).and_then(T::deserialize)
}

/// Reads a JSON list of at most `limit` items, one after the other.
pub fn from_json_list<T: DeserializeOwned>(text: &str, limit: usize) -> Result<Vec<T>, Unreadable> {
    json::read_list(text, limit)
}

/// What is left of a payload; nothing is an empty object.
fn trimmed(text: Option<&str>) -> &str {
    match text.unwrap_or("").trim_matches([' ', '\t', '\r', '\n']) {
        "" => "{}",
        text => text,
    }
}

/// serde would take an array for the fields in their order.
fn object<'a>(text: &'a str, wanted: &str) -> Result<&'a str, Unreadable> {
    if text.starts_with('{') {
        return Ok(text);
    }
    Err(Unreadable::custom(format!("expected {wanted}")))
}

/// What went wrong, as a lower-case word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorCode {
    /// Not allowed, or not wanted now.
    Refused,
    /// No room: try again later.
    Busy,
    /// The named thing does not exist.
    NotFound,
    /// The request makes no sense.
    Invalid,
    /// No such message type.
    UnknownType,
    /// The type is known, this version of it not.
    UnsupportedVersion,
    /// Over a limit.
    TooLarge,
    /// No key that counts has signed it.
    Untrusted,
    /// The operating system failed.
    Io,
    /// Any other word, of up to 64 bytes.
    Other(String),
}

/// Bytes of the word of an error. It is stored and sent on as it came, so a peer must not make it long.
const WORD: usize = 64;

impl ErrorCode {
    /// The word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::NotFound => "not-found",
            Self::Invalid => "invalid",
            Self::UnknownType => "unknown-type",
            Self::UnsupportedVersion => "unsupported-version",
            Self::TooLarge => "too-large",
            Self::Untrusted => "untrusted",
            Self::Io => "io",
            Self::Other(word) => word,
        }
    }

    fn from_word(word: &str) -> Self {
        match word {
            "refused" => Self::Refused,
            "busy" => Self::Busy,
            "not-found" => Self::NotFound,
            "invalid" => Self::Invalid,
            "unknown-type" => Self::UnknownType,
            "unsupported-version" => Self::UnsupportedVersion,
            "too-large" => Self::TooLarge,
            "untrusted" => Self::Untrusted,
            "io" => Self::Io,
            other if is_word(other) => Self::Other(other.to_owned()),
            // Whoever writes that has no code of a meaning that anybody knows.
            _ => Self::Invalid,
        }
    }
}

fn is_word(text: &str) -> bool {
    let of_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=WORD).contains(&text.len()) && text.bytes().all(of_word)
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|word| Self::from_word(&word))
    }
}

/// `error`: the end of a conversation that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Error {
    pub code: ErrorCode,
    #[serde(default)]
    pub message: String,
    /// What a program can use, such as the versions spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

impl Error {
    /// An error without detail.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            detail: None,
        }
    }
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "payload/tree_tests.rs"]
mod tree_tests;

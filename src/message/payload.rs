//! The payloads of the message types, named as on the wire (`docs/protocol.md` sections 2 to 4).
//!
//! Times are Unix times in seconds, whole or with a fraction. A field that is absent is not sent.

use super::VERSION;
use super::text::{Data, Encoding};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

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
/// Asks the agent for its own state; answered by a message of the same type.
pub const AGENT_STATUS: &str = "agent.status";

/// Why a payload cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadError(String);

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the payload cannot be read: {}", self.0)
    }
}

impl std::error::Error for PayloadError {}

/// JSON of a payload.
///
/// # Panics
/// Never for the types of this module: they hold no maps with keys other than text and no failing serializer.
pub(super) fn to_json<T: Serialize>(payload: &T) -> String {
    serde_json::to_string(payload).expect("payload types are plain data")
}

/// Reads a payload: XML where it begins with `<`, else JSON.
pub(super) fn from_text<T: DeserializeOwned>(text: Option<&str>) -> Result<T, PayloadError> {
    let text = text.unwrap_or("").trim_matches([' ', '\t', '\r', '\n']);
    if text.is_empty() {
        return serde_json::from_str("{}").map_err(|e| PayloadError(e.to_string()));
    }
    if text.starts_with('<') {
        // serde's XML reader skips a DOCTYPE; here one is as unwelcome as in the message itself.
        if text.contains("<!DOCTYPE") {
            return Err(PayloadError("a DOCTYPE is not accepted".to_owned()));
        }
        return quick_xml::de::from_str(text).map_err(|e| PayloadError(e.to_string()));
    }
    serde_json::from_str(text).map_err(|e| PayloadError(e.to_string()))
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
    /// The operating system failed.
    Io,
    /// Any other word.
    Other(String),
}

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
            "io" => Self::Io,
            other => Self::Other(other.to_owned()),
        }
    }
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

/// `hello`, agent to Poseidon: who connects.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Hello {
    pub agent: AgentVersion,
    /// Random per installation: several Tritons may share one identifier.
    pub instance: String,
    pub hostname: String,
    pub os: String,
    pub kernel: String,
    pub arch: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Whether the kernel's clock is disciplined (NTP); absent where it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_synced: Option<bool>,
    pub time: f64,
    /// Message types that the agent acts on.
    pub capabilities: Vec<String>,
    pub plugins: Vec<PluginState>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Version of the agent and of its protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct AgentVersion {
    pub version: String,
    pub protocol: u32,
}

impl AgentVersion {
    /// Of this build.
    pub fn own() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: VERSION,
        }
    }
}

/// One plugin in `hello` and `agent.status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct PluginState {
    pub name: String,
    pub version: String,
    pub state: String,
}

/// `welcome`, Poseidon to agent: what it is called and how often it reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Welcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_seconds: Option<u32>,
    /// Heartbeats may leave out what has not changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deltas: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<f64>,
}

/// `bye`, either side: a close that is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Bye {
    pub reason: String,
}

/// `heartbeat`: the system's health. Bytes, seconds, loads as 0..1; what a device cannot give is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Heartbeat {
    /// Only what changed since the last heartbeat on this connection.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub delta: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime: Option<f64>,
    /// Share of all processors in use since the last heartbeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_load: Option<f64>,
    /// The same per processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor_load: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physical_memory_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physical_memory_available: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physical_memory_used: Option<u64>,
    /// Physical memory and swap together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_memory_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_memory_available: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_memory_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_descriptor_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_descriptor_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_systems: Option<Vec<FileSystem>>,
    /// Over 1, 5 and 15 minutes, as in `/proc/loadavg`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_average: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<Interface>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperatures: Option<Vec<Temperature>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentHealth>,
}

/// A mounted file system; sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct FileSystem {
    pub mount: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// The device or source.
    pub name: String,
    pub space_total: u64,
    pub space_used: u64,
    /// Available to ordinary users, as `df` shows it.
    pub space_available: u64,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub up: bool,
    pub addresses: Vec<String>,
}

/// A temperature sensor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Temperature {
    pub label: String,
    pub celsius: f64,
}

/// The agent about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct AgentHealth {
    /// Resident memory in bytes.
    pub rss: u64,
    /// Messages waiting to be sent.
    pub queue: u64,
    /// Jobs running or waiting.
    pub jobs: u64,
    pub reconnects: u64,
}

/// What happens to a job's output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputMode {
    /// Sent as it comes.
    #[default]
    Stream,
    /// Kept, as far as the limit goes, and given with the result.
    Collect,
    /// Read and counted, not sent; the result still has its tail.
    Discard,
}

/// `command`: what to run and how. Exactly one of `argv` and `shell`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Command {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// Given to `/bin/sh -c`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Added to the environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Base64 of what the process reads; without it, `/dev/null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// Address space of each process of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    pub output: OutputMode,
    /// Unix time after which it must not start any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<f64>,
    /// Unix time before which it must not start yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<f64>,
}

/// `cancel`: SIGTERM to a job's process group, SIGKILL after the grace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Cancel {
    /// The job's token.
    pub job: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<f64>,
}

/// `accepted`: the job is known and will run; empty on the first answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Accepted {
    /// `waiting` or `running`, where the same token arrived again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// One of a job's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// `output`: a piece of a job's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Output {
    pub stream: Stream,
    /// Position of the first byte in that stream, so that a gap is visible.
    pub offset: u64,
    // Not flattened from `Data`: serde's XML reader cannot see through that.
    pub data: String,
    #[serde(default)]
    pub encoding: Encoding,
}

impl Output {
    /// A piece that begins at `offset`.
    pub fn new(stream: Stream, offset: u64, bytes: &[u8]) -> Self {
        let Data { data, encoding } = Data::from_bytes(bytes);
        Self {
            stream,
            offset,
            data,
            encoding,
        }
    }

    /// The bytes; `None` where the base64 is wrong.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        Data {
            data: self.data,
            encoding: self.encoding,
        }
        .into_bytes()
    }
}

/// `progress`: how far a job is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Progress {
    pub percent: f64,
    pub message: String,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Exit code 0.
    Succeeded,
    /// Another exit code, or a signal that nobody here sent.
    Failed,
    /// Ended by `cancel`, or by the agent's own stop.
    Cancelled,
    /// Ran longer than `timeoutSeconds`.
    TimedOut,
    /// The agent or the device died while it ran.
    Interrupted,
    /// `notAfter` passed before it could start.
    Expired,
}

/// `result`: the end of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct JobResult {
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Number of the signal that ended the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Absent where it never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<f64>,
    #[serde(default)]
    pub elapsed_ms: u64,
    #[serde(default)]
    pub stdout_bytes: u64,
    #[serde(default)]
    pub stderr_bytes: u64,
    /// Bytes of both streams that were not handed to the connection because there was none.
    #[serde(default)]
    pub dropped: u64,
    /// A process that outlived the job holds its output open; what it writes is not read any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaked: bool,
    #[serde(default)]
    pub tail: Tail,
    /// Why it could not start or what else went wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl JobResult {
    /// The end of a request that was carried out at once, without a process.
    pub fn done() -> Self {
        Self {
            status: Status::Succeeded,
            exit_code: None,
            signal: None,
            started_at: None,
            elapsed_ms: 0,
            stdout_bytes: 0,
            stderr_bytes: 0,
            dropped: 0,
            leaked: false,
            tail: Tail::default(),
            message: None,
        }
    }
}

/// The last bytes of each stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Tail {
    pub stdout: Data,
    pub stderr: Data,
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;

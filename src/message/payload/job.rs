//! The payloads of jobs.

use super::loose;
use crate::message::text::{self, Data, Encoding};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

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
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "loose::null_is_default"
    )]
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
    #[serde(deserialize_with = "loose::null_is_default")]
    pub output: OutputMode,
    /// Unix time after which it must not start any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<f64>,
    /// Unix time before which it must not start yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<f64>,
}

/// What bounds any job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Bounds {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<f64>,
}

/// What the small requests of jobs take, each its own part of it: one type, since each costs a router a kilobyte.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Parameters {
    /// `script`: which.
    pub name: String,
    /// `script`: its arguments.
    #[serde(deserialize_with = "loose::null_is_default")]
    pub args: Vec<String>,
    /// `agent.restart` and its like: how long to wait before.
    pub delay_seconds: Option<f64>,
    /// `engine.command`: the line.
    pub command: String,
    /// `engine.command`: where to.
    pub pipe: Option<String>,
    /// `progress` of a local client: whose.
    pub job: String,
    #[allow(missing_docs)]
    pub percent: Option<f64>,
    #[allow(missing_docs)]
    pub message: Option<String>,
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
pub struct Output<'a> {
    pub stream: Stream,
    /// Position of the first byte in that stream, so that a gap is visible.
    pub offset: u64,
    // Not flattened from `Data`: serde's XML reader cannot see through that.
    pub data: Cow<'a, str>,
    #[serde(default)]
    pub encoding: Encoding,
}

impl<'a> Output<'a> {
    /// A piece that begins at `offset`. Text stays where it is.
    pub fn new(stream: Stream, offset: u64, bytes: &'a [u8]) -> Self {
        let (data, encoding) = text::carried(bytes);
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
            data: self.data.into_owned(),
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
    /// What a job that was no process has to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
    /// Why it could not start or what else went wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl JobResult {
    /// The end of what never had a process: carried out at once, or never started.
    pub fn without_process(status: Status, message: Option<&str>) -> Self {
        Self {
            status,
            exit_code: None,
            signal: None,
            started_at: None,
            elapsed_ms: 0,
            stdout_bytes: 0,
            stderr_bytes: 0,
            dropped: 0,
            leaked: false,
            tail: Tail::default(),
            data: None,
            message: message.map(str::to_owned),
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

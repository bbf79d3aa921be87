//! What is asked of many devices at once, as it is stored.

use super::Result;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;

/// Where a member of a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    /// It has no job yet.
    Waiting,
    /// It has a job that has not ended.
    Running,
    /// Its job did what it should.
    Succeeded,
    /// Its job did not.
    Failed,
    /// Its job took too long.
    TimedOut,
    /// The device was down, or went away.
    Offline,
    /// Its job was cancelled.
    Cancelled,
    /// The batch was stopped before its turn.
    NotStarted,
}

impl MemberState {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Offline,
        Self::Cancelled,
        Self::NotStarted,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::Offline => "offline",
            Self::Cancelled => "cancelled",
            Self::NotStarted => "not-started",
        }
    }

    /// What `as_str` wrote.
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Why nothing more of a batch is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stopped {
    /// One of the first did not succeed.
    Canary,
    /// Too many did not.
    Failures,
    /// Somebody wanted it so; what runs is cancelled too.
    Cancelled,
}

impl Stopped {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Failures => "failures",
            Self::Cancelled => "cancelled",
        }
    }

    /// What `as_str` wrote.
    pub fn read(text: &str) -> Option<Self> {
        [Self::Canary, Self::Failures, Self::Cancelled]
            .into_iter()
            .find(|stopped| stopped.as_str() == text)
    }
}

/// How many members stand where, in the order of [`MemberState::ALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts(pub [u32; 8]);

impl Counts {
    /// One more stands here.
    pub fn add(&mut self, state: MemberState) {
        self.0[state as usize] += 1;
    }

    /// How many stand here.
    pub fn of(&self, state: MemberState) -> u32 {
        self.0[state as usize]
    }
}

/// What is asked of whom, and how.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub created: f64,
    /// Type of the request.
    pub kind: String,
    /// Its payload.
    pub request: Arc<RawValue>,
    /// The selectors…
    pub on: Vec<String>,
    /// …and names that its members were found by.
    pub agents: Vec<String>,
    /// So many jobs at a time.
    pub concurrency: u32,
    /// So many jobs first, and the rest only if they succeed.
    pub canary: u32,
    /// After so many failures nothing more is started; 0 for never.
    pub stop_on_failures: u32,
    /// Members that are down are waited for…
    pub queue: bool,
    /// …until then.
    pub expires: Option<f64>,
    /// Number of members.
    pub total: u32,
    /// Why nothing more is started.
    pub stopped: Option<Stopped>,
    /// When all of it was over.
    pub ended: Option<f64>,
    /// How the members ended, once all of it is over.
    pub counts: Option<Counts>,
}

impl Batch {
    /// Whether this asks the same of the same selectors and names, and in the same way.
    pub fn asks_like(&self, other: &Self) -> bool {
        let how = |b: &Self| (b.concurrency, b.canary, b.stop_on_failures, b.queue);
        (&self.kind, &self.on, &self.agents) == (&other.kind, &other.on, &other.agents)
            && how(self) == how(other)
            && crate::jobs::is_same(&self.request, &other.request)
    }
}

/// One device of a batch; its number is its place.
#[derive(Debug, Clone)]
pub struct Member {
    /// Hash of the identifier.
    pub identifier: String,
    /// Instance id.
    pub instance: String,
    /// Name when the batch was made.
    pub agent: String,
    /// Token of its job, from the beginning.
    pub token: String,
    /// There is such a job.
    pub started: bool,
    /// How it ended.
    pub end: Option<MemberEnd>,
}

/// How a member ended.
#[derive(Debug, Clone)]
pub struct MemberEnd {
    /// Neither waiting nor running.
    pub state: MemberState,
    /// More of it.
    pub detail: Detail,
}

/// What is kept of a job's end: the job may be pruned before the batch is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Detail {
    /// Exit code of its process.
    pub exit_code: Option<i64>,
    /// Signal that ended it.
    pub signal: Option<i64>,
    /// How long it ran.
    pub elapsed_ms: Option<f64>,
    /// Why it ended so, where that is known.
    pub message: Option<String>,
    /// The last line of stderr where it failed, else of stdout.
    pub last_line: Option<String>,
}

/// What a store does with batches.
pub trait BatchStore {
    /// Adds a batch with its members.
    fn insert_batch(&mut self, batch: &Batch, members: &[Member]) -> Result<()>;
    /// Writes how members ended, by their numbers.
    fn end_members(&mut self, batch: &str, ended: &[(u32, bool, MemberEnd)]) -> Result<()>;
    /// Nothing more of it is started.
    fn stop_batch(&mut self, batch: &str, why: Stopped) -> Result<()>;
    /// All of it is over.
    fn end_batch(&mut self, batch: &str, ended: f64, counts: &Counts) -> Result<()>;
    /// One batch.
    fn batch(&mut self, id: &str) -> Result<Option<(Batch, Vec<Member>)>>;
    /// Those that are not over.
    fn open_batches(&mut self) -> Result<Vec<(Batch, Vec<Member>)>>;
    /// Batches, newest first, at most so many; only those with no other members than these.
    fn batches(&mut self, limit: u32, only: &super::Only) -> Result<Vec<Batch>>;
    /// Deletes batches that are over, beyond the newest `keep` and beyond the newest with `keep_members` members in all.
    fn prune_batches(&mut self, keep: u64, keep_members: u64) -> Result<usize>;
}

//! Jobs: everything that takes time on this device, processes ([`payload::Command`]) and what the agent does itself ([`Task`]).
//!
//! [`Pool`] takes requests and writes each job's begin and end into the [`Journal`](crate::journal::Journal), which
//! carries them to Poseidon and remembers the tokens. Local clients get both through the [`Outbox`] they came with, as
//! everyone gets refusals and output. A fixed number of workers supervise one job each, in one poll(2) on the job's
//! pipes, its process and the worker's wake. A job's course:
//!
//! ```text
//! submit ─ request::check ─ registry::admit ─ journal.accept ─ waiting ─ (worker) spawn ─ supervise ─ journal.end
//!            └ error          └ error busy      └ known, busy, io
//! ```
//!
//! Invariants: a token starts at most one process as long as the journal knows it; a token is in the registry from
//! before it is accepted until its end is in the journal, so that one of the two knows it at any time; who moves a job
//! to its phase `Ending` writes and reports its end, so there is exactly one; no lock is held over I/O, the
//! journal's included; a process group is signalled only while its leader is not reaped, since later its number may be
//! somebody else's. A process that leaves the group (setsid) has left the job: no cancel reaches it.

mod ending;
mod gate;
mod output;
mod pool;
mod registry;
mod request;
mod spawn;
mod supervise;
pub mod task;

pub use ending::{kind_of, travels};
pub use gate::Gate;
pub use pool::Pool;
pub use registry::JobState;
pub(crate) use spawn::{DEFAULT_PATH, hide_own_variables};
pub use task::{Context, Stop, Task};

use crate::message::payload;
use crate::outbox::Outbox;
use serde::Serialize;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

/// Limits and habits of a [`Pool`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// Jobs that run at the same time.
    pub workers: usize,
    /// Jobs that wait for a worker or for their time; one more is refused as `busy`.
    pub queue: usize,
    /// Time between SIGTERM and SIGKILL where a `cancel` does not say.
    pub grace: Duration,
    /// Time-out of a job that names none.
    pub default_timeout: Option<Duration>,
    /// Longest time-out; a longer one, or none, becomes this one.
    pub max_timeout: Option<Duration>,
    /// Bytes of each stream that `"output":"collect"` keeps: the last ones.
    pub collect_bytes: usize,
    /// Bytes of each stream that any other result shows: the last ones.
    pub tail_bytes: usize,
    /// Most bytes of the journal that the end of one job may take: a result's tails are cut to it.
    pub end_bytes: usize,
    /// How long a process's end is waited for in its pipes. Who holds one open longer has left the job.
    pub pipe_grace: Duration,
    /// Niceness of a job that names none; less nice than the agent is none.
    pub nice: i32,
    /// A job's place in the kernel's line when memory runs out, 0 to 1000: the highest goes first.
    pub oom_score_adj: i32,
    /// Added to every job's environment, such as `TRITON_SOCKET`.
    pub environment: Vec<(OsString, OsString)>,
    /// What runs `shell` commands, called with `-c`.
    pub shell: String,
    /// Whether to ask the kernel for a pidfd. Without one (Linux before 5.3, or to test that) an exit is found by
    /// looking, 5 to 100 times a second, while a job runs.
    pub pidfd: bool,
    /// Asked by jobs of Poseidon's where they have got to.
    pub gate: Option<Arc<dyn Gate>>,
}

impl Settings {
    /// Bytes that a job keeps of each stream for its result.
    fn kept(&self, mode: payload::OutputMode) -> usize {
        match mode {
            payload::OutputMode::Collect => self.collect_bytes,
            payload::OutputMode::Stream | payload::OutputMode::Discard => self.tail_bytes,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 4,
            queue: 16,
            grace: Duration::from_secs(5),
            default_timeout: None,
            max_timeout: None,
            collect_bytes: 64 * 1024,
            tail_bytes: 4 * 1024,
            end_bytes: 256 * 1024,
            pipe_grace: Duration::from_millis(500),
            nice: 5,
            oom_score_adj: 500,
            environment: Vec::new(),
            shell: "/bin/sh".to_owned(),
            pidfd: true,
            gate: None,
        }
    }
}

/// Who asked for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The central instance.
    Poseidon,
    /// A client of the local socket.
    Local,
    /// The device's own clock, by an entry of its schedule.
    Schedule,
    /// An external plugin, by its name. It asks for no jobs.
    Plugin(&'static str),
}

impl Origin {
    /// As in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poseidon => "poseidon",
            Self::Local => "local",
            Self::Schedule => "schedule",
            Self::Plugin(_) => "plugin",
        }
    }
}

/// What a job is to do.
#[derive(Debug)]
pub enum Work {
    /// Run a process.
    Command(payload::Command),
    /// Carry out something within the agent.
    Task(Arc<dyn Task>, payload::Bounds),
    /// Nothing: it makes no sense. A token that is known gets its answer all the same.
    Refused(payload::Error),
}

/// Something that a job needs and that is let go with it.
pub trait Holds: Send + Sync {}

impl std::fmt::Debug for dyn Holds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Holds")
    }
}

/// A request to run something.
#[derive(Debug)]
pub struct Request {
    /// Names the job: the id of the message that asked for it.
    pub token: String,
    /// The type of that message.
    pub kind: String,
    /// Conversation that all answers belong to.
    pub conversation_id: String,
    /// What to do.
    pub work: Work,
    /// What lists show; without it the program's name, without arguments.
    pub name: Option<String>,
    /// Kept until the job has ended, such as a folder that must not go.
    pub holds: Option<Arc<dyn Holds>>,
    /// Where output and answers go. What the journal carries to Poseidon does not come here for its own jobs.
    pub sink: Arc<Outbox>,
    /// Who asks.
    pub origin: Origin,
}

/// Whether a command can be a job at all; the error says which field is wrong.
pub fn check(command: &payload::Command) -> Result<(), payload::Error> {
    let work = Work::Command(command.clone());
    request::check("t", work, None, &Settings::default()).map(|_| ())
}

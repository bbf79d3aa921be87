//! The journal: the history of this device, what has to reach Poseidon, and the memory of tokens already seen
//! (`docs/protocol.md` section 5).
//!
//! Skeleton: in memory only. The folder on disk comes with `folder.rs`.

use crate::message::id;
use crate::message::payload::{
    self, ErrorCode, History, HistoryGet, HistoryPut, JournalState, Record, code,
};
use crate::sys::clock;
use crate::sys::wake::Wake;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Where the journal is and how large it may be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its folder.
    pub folder: PathBuf,
    /// The agent's own folder, which remembers the sequence where the journal itself is lost (tmpfs).
    pub state: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of its records while the folder cannot be used.
    pub memory_bytes: usize,
    /// Whether to wait for the disk where the promise needs it.
    pub sync: bool,
}

/// A job to be accepted.
#[derive(Debug, Clone, Copy)]
pub struct Acceptance<'a> {
    /// The job.
    pub token: &'a str,
    /// The conversation of its request.
    pub conversation: &'a str,
    /// The program's name.
    pub what: &'a str,
    /// `poseidon` or `local`.
    pub origin: &'static str,
    /// Bytes to keep free for its end.
    pub reserve: usize,
}

/// Where a token stands.
#[derive(Debug, Clone)]
pub enum Standing {
    /// Its job was accepted and has no end yet.
    Open,
    /// This is its end.
    Ended(Box<Record>),
}

/// Why a job is not accepted.
#[derive(Debug)]
pub enum Refusal {
    /// The token is known: the job must not start.
    Known(Standing),
    /// No room.
    Full(String),
    /// The disk failed. From now on the journal is in memory and has another id: what comes next is accepted, once
    /// Poseidon has been told by a new `hello`.
    Failed(String),
}

/// How the journal is, for `agent.status`.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// As in `hello`.
    #[serde(flatten)]
    pub state: JournalState,
    /// The last sequence that Poseidon has stored.
    pub acked: u64,
    /// Records that it has not.
    pub waiting: u64,
    /// Bytes in use, and the bound.
    pub bytes: u64,
    #[allow(missing_docs)]
    pub limit: u64,
    /// Events dropped for want of room, since the agent's start.
    pub dropped: u64,
    /// Corrupt records that were skipped or cut off.
    pub damaged: u64,
    /// What went to the disk since the agent's start.
    pub written_bytes: u64,
    #[allow(missing_docs)]
    pub syncs: u64,
}

/// The journal. All its calls may wait for the disk; hold no lock while calling.
#[derive(Debug)]
pub struct Journal {
    state: Mutex<State>,
    /// Rung when there is a record more.
    wake: Wake,
}

#[derive(Debug)]
struct State {
    id: String,
    records: VecDeque<Record>,
    last: u64,
    acked: u64,
}

impl Journal {
    /// Opens or makes the journal. A folder that cannot be used is no error: the journal is in memory then and its
    /// [`Report`] says why. Jobs that were accepted and have no end get one here: `interrupted`.
    pub fn open(_settings: &Settings) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State {
                id: id::random(),
                records: VecDeque::new(),
                last: 0,
                acked: 0,
            }),
            wake: Wake::new()?,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rung when there is a record more.
    pub fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Records that a job is accepted, durably, unless its token is known.
    pub fn accept(&self, job: &Acceptance<'_>) -> Result<(), Refusal> {
        if let Some(standing) = self.find(job.token) {
            return Err(Refusal::Known(standing));
        }
        let data = serde_json::json!({ "what": job.what, "origin": job.origin });
        let conversation = (job.conversation != job.token).then(|| job.conversation.to_owned());
        self.append(
            job.token,
            code::ACCEPTED,
            clock::now(),
            conversation,
            data.to_string(),
        );
        Ok(())
    }

    /// Records the end of an accepted job. It cannot be refused: its room was reserved.
    pub fn end(&self, token: &str, conversation: &str, code: u32, data: String) {
        let conversation = (conversation != token).then(|| conversation.to_owned());
        self.append(token, code, clock::now(), conversation, data);
    }

    /// Stores a value, durably.
    pub fn put(&self, put: &HistoryPut) -> Result<Record, payload::Error> {
        let code = put.code.unwrap_or(code::VALUE);
        if code < 100 {
            let message = "code must be above 99: the others are the agent's own";
            return Err(payload::Error::new(ErrorCode::Invalid, message));
        }
        let token = put.token.clone().unwrap_or_else(id::random);
        let etime = put.etime.unwrap_or_else(clock::now);
        Ok(self.append(&token, code, etime, None, put.data.to_string()))
    }

    fn append(
        &self,
        token: &str,
        code: u32,
        etime: f64,
        conversation: Option<String>,
        data: String,
    ) -> Record {
        let mut state = self.state();
        state.last += 1;
        let record = Record {
            id: state.last,
            token: token.to_owned(),
            code,
            etime,
            ctime: clock::now(),
            conversation,
            data: RawValue::from_string(data).unwrap_or_else(|_| RawValue::NULL.to_owned()),
        };
        state.records.push_back(record.clone());
        drop(state);
        self.wake.ring();
        record
    }

    /// Where a token stands.
    pub fn find(&self, token: &str) -> Option<Standing> {
        let state = self.state();
        let record = state
            .records
            .iter()
            .rev()
            .find(|r| r.token == token && code::is_job(r.code))?;
        Some(if code::is_end(record.code) {
            Standing::Ended(Box::new(record.clone()))
        } else {
            Standing::Open
        })
    }

    /// The first record behind `id`.
    pub fn next(&self, id: u64) -> Option<Record> {
        self.state().records.iter().find(|r| r.id > id).cloned()
    }

    /// The records that fit a query, within `bytes` of JSON.
    pub fn history(&self, query: &HistoryGet, _bytes: usize) -> Result<History, payload::Error> {
        let state = self.state();
        let fits = |r: &&Record| {
            query.token.as_ref().is_none_or(|t| r.token == *t)
                && query.code.is_none_or(|c| r.code == c)
                && query.ctime.is_none_or(|t| r.ctime >= t)
                && query.etime.is_none_or(|t| r.etime >= t)
                && query.id.is_none_or(|id| r.id > id)
        };
        let records = state
            .records
            .iter()
            .filter(fits)
            .take(query.limit.unwrap_or(100))
            .cloned()
            .collect();
        Ok(History {
            records,
            last: state.last,
            more: false,
        })
    }

    /// A server that acknowledges says what it has stored; returns the sequence behind which to go on. Until
    /// [`Self::disconnected`], ends of jobs are synced only where they are not acknowledged soon.
    pub fn connected(&self, acked: u64) -> u64 {
        self.state().acked = acked;
        acked
    }

    /// Everything up to `through` has been stored by the server, or handed to one that acknowledges nothing.
    pub fn acknowledge(&self, through: u64) {
        let mut state = self.state();
        state.acked = state.acked.max(through.min(state.last));
    }

    /// The last sequence that was acknowledged.
    pub fn acked(&self) -> u64 {
        self.state().acked
    }

    /// The connection has ended: what was not acknowledged is synced, now and from now on.
    pub fn disconnected(&self) {}

    /// When [`Self::sync`] is due, if it is.
    pub fn sync_due(&self) -> Option<Instant> {
        None
    }

    /// Waits for the disk.
    pub fn sync(&self) {}

    /// Whether the journal has another id than before, asked once: Poseidon has to be told by a new `hello`. The wake
    /// is rung when that happens.
    pub fn take_id_changed(&self) -> bool {
        false
    }

    /// How it is.
    pub fn report(&self) -> Report {
        let state = self.state();
        Report {
            state: JournalState {
                id: state.id.clone(),
                state: "memory".to_owned(),
                reason: None,
                first: state.records.front().map_or(0, |r| r.id),
                last: state.last,
            },
            acked: state.acked,
            waiting: state.last - state.acked.min(state.last),
            ..Report::default()
        }
    }
}

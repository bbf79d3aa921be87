//! The journal: the history of this device, what has to reach Poseidon, and the memory of tokens already seen
//! (`docs/protocol.md` section 5).
//!
//! A folder with a file `id`, which names the journal, and numbered segments of lines (`line`), of which the last
//! one grows (`disk`). Text, because the one who has to look at it at night has `cat` and `grep`. A whole segment goes
//! at once where it can, so bounding the journal costs nothing in the common case; else the segment is rewritten
//! (`room`).
//!
//! **When the disk is waited for.** Flash wears, so: once for each accepted job and each stored value, before the
//! call returns. An end is written before it is reported, but while a server that acknowledges is connected its sync
//! waits a second: mostly the acknowledgement comes first, and then none is needed. The price: a power cut right
//! after that can lose an end that Poseidon has; the next start then reports `interrupted` for that job, and Poseidon
//! keeps the end that it knows.
//!
//! **Numbers** never repeat (`sequence`), also where the journal is lost: STATE/sequence is ahead of what is in use. If
//! that is lost as well, the first `welcome` shows it, since Poseidon then has more than this instance knows of,
//! and what has been numbered since the start gets numbers behind that.
//!
//! **A disk that fails** is no reason to stop: the journal goes on in memory under another id (`memory`), so that
//! Poseidon knows that a restart may forget, and the disk is tried again (`state`). Then it gets what it lacks.
//!
//! One lock is held over I/O, unlike elsewhere in the agent: whether a token is known, its record and its number have
//! to be one step.

mod disk;
mod events;
mod line;
mod memory;
mod open;
mod query;
mod record;
mod recover;
mod renumber;
mod report;
mod room;
mod sequence;
mod state;
pub(crate) mod store;
#[cfg(test)]
mod tests;

pub use record::shorten;

use crate::message::payload::{self, History, HistoryGet, HistoryPut, JournalState, Record};
use crate::sys::wake::Wake;
use state::State;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use store::{Directory, Folder};

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
    /// A job that the agent's restart was a part of: it is not interrupted, and this process tells its end.
    pub goes_on: Option<String>,
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
    /// As [`crate::job::Origin`] has it.
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

impl Journal {
    /// Opens or makes the journal. A folder that cannot be used is no error: the journal is in memory then and its
    /// [`Report`] says why. Jobs that were accepted and have no end get one here: `interrupted`.
    pub fn open(settings: &Settings) -> io::Result<Self> {
        let folder = Directory::new(&settings.folder, true);
        let state = Directory::new(&settings.state, false);
        Self::over(settings, folder, state)
    }

    /// The same over folders of any kind.
    fn over(
        settings: &Settings,
        folder: Arc<dyn Folder>,
        state: Arc<dyn Folder>,
    ) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State::open(settings, folder, state)),
            wake: Wake::new()?,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panicked thread leaves is sound: numbers are taken before they are used.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something that may make records or change the id, and rings if it has.
    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let before = (state.last(), state.id_changed);
        let result = act(&mut state);
        let changed = before != (state.last(), state.id_changed);
        drop(state);
        if changed {
            self.wake.ring();
        }
        result
    }

    /// Rung when there is a record more, or another id.
    pub fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Records that a job is accepted, durably, unless its token is known.
    pub fn accept(&self, job: &Acceptance<'_>) -> Result<(), Refusal> {
        self.change(|state| state.accept(job))
    }

    /// Records the end of an accepted job. It cannot be refused: its room was reserved.
    pub fn end(&self, token: &str, conversation: &str, code: u32, data: String) {
        self.change(|state| state.end(token, conversation, code, data));
    }

    /// Stores a value, durably.
    pub fn put(&self, put: &HistoryPut) -> Result<Record, payload::Error> {
        self.change(|state| state.put(put))
    }

    /// Stores events, all or none: each its time and its data in JSON. Returns the sequence of the last. They are synced as
    /// the ends of jobs are; without a connection at once, but no oftener than once in some seconds, and then it is the
    /// caller's to see that [`Self::sync`] is called when [`Self::sync_due`] says.
    pub fn events(&self, events: Vec<(f64, String)>) -> Result<u64, payload::Error> {
        let drafts = events.into_iter();
        let drafts = drafts.map(|(time, data)| record::Draft::event(time, data));
        self.change(|state| state.events(drafts.collect()))
    }

    /// Whether a server that acknowledges is there.
    pub fn is_connected(&self) -> bool {
        self.state().connected
    }

    /// This job goes on over the agent's restart: the next process tells its end.
    pub fn set_goes_on(&self, token: &str) {
        self.state().goes_on = Some(token.to_owned());
    }

    /// Whether this job goes on over the agent's restart, and has no end yet.
    pub fn goes_on(&self, token: &str) -> bool {
        let state = self.state();
        state.goes_on.as_deref() == Some(token) && state.open.contains_key(token)
    }

    /// Where a token stands.
    pub fn find(&self, token: &str) -> Option<Standing> {
        self.state().standing(token).unwrap_or_else(|fault| {
            log::warn!("where job {token} stands is not known: {fault}");
            None
        })
    }

    /// The first record behind `id`.
    pub fn next(&self, id: u64) -> Option<Record> {
        self.change(|state| state.next(id))
    }

    /// The records that fit a query, within `bytes` of JSON.
    pub fn history(&self, query: &HistoryGet, bytes: usize) -> Result<History, payload::Error> {
        self.change(|state| state.history(query, bytes))
    }

    /// A server that acknowledges says what it has stored; returns the sequence behind which to go on. Until
    /// [`Self::disconnected`], ends of jobs are synced only where they are not acknowledged soon.
    pub fn connected(&self, acked: u64) -> u64 {
        self.change(|state| state.connected(acked))
    }

    /// Everything up to `through` has been stored by the server, or handed to one that acknowledges nothing.
    pub fn acknowledge(&self, through: u64) {
        self.state().acknowledge(through);
    }

    /// Whether no Poseidon is configured. Then records wait for one as long as there is room, and no longer.
    pub fn set_alone(&self, alone: bool) {
        self.state().alone = alone;
    }

    /// The last sequence that was acknowledged.
    pub fn acked(&self) -> u64 {
        self.state().acked
    }

    /// The connection has ended: what was not acknowledged is synced, now and from now on.
    pub fn disconnected(&self) {
        self.change(State::disconnected);
    }

    /// When [`Self::sync`] is due, if it is.
    pub fn sync_due(&self) -> Option<Instant> {
        self.state().sync_due()
    }

    /// Waits for the disk, where something waits for that.
    pub fn sync(&self) {
        self.change(State::sync_waiting);
    }

    /// Whether a cut of power leaves this record: it is on the disk, or Poseidon has it.
    pub fn keeps(&self, id: u64) -> bool {
        self.state().keeps(id)
    }

    /// The end of the agent: what is in memory goes to the disk where that works again, and is synced.
    pub fn close(&self) {
        self.change(State::close);
    }

    /// Tries a disk that has failed again, where that is due. Records do so too; this is for a device that has none.
    pub fn tend(&self) {
        self.change(State::recover);
    }

    /// When [`Self::tend`] is due, where the disk has failed.
    pub fn retry_due(&self) -> Option<Instant> {
        self.state().memory.as_ref().map(|memory| memory.next_try)
    }

    /// Whether the journal has got another id since the last call (the disk failed, or is back): then Poseidon has to
    /// hear it by a new `hello`. [`Self::wake`] is rung when it happens.
    pub fn take_id_changed(&self) -> bool {
        std::mem::take(&mut self.state().id_changed)
    }

    /// The last sequence.
    pub fn last(&self) -> u64 {
        self.state().last()
    }

    /// How it is. Counting what waits may read a part of the journal.
    pub fn report(&self) -> Report {
        self.state().report()
    }
}

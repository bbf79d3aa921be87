//! What is behind the journal's lock: the disk, the memory in its place, and the rules of both.

use super::disk::{Disk, Limits};
use super::memory::Memory;
use super::open;
use super::record::{Draft, LOSS_BYTES, Lost, beginning};
use super::renumber::Rebase;
use super::sequence::Sequence;
use super::store::{Counts, Fault, Folder};
use super::{Acceptance, Refusal, Settings, Standing};
use crate::message::payload::{self, ErrorCode, HistoryPut, Record, code};
use crate::sys::clock;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an end may wait for its acknowledgement, which makes a sync needless.
const LAZY: Duration = Duration::from_secs(1);
/// While there is no connection events are synced at once, but no oftener than this.
pub const EVENT_PAUSE: Duration = Duration::from_secs(5);
/// Pause between attempts to use the disk again.
const RETRY: Duration = Duration::from_secs(30);
/// At most this part of the journal is kept free for the end of one job; a larger end loses its tails when it is full.
const DISK_RESERVE: u64 = 4;
/// The same for the journal in memory.
const MEMORY_RESERVE: usize = 64;
/// An end without its tails is smaller.
const SMALLEST_END: usize = 1_024;

/// Bytes of a program's name that are kept.
const WHAT_LIMIT: usize = 256;

/// A job without an end.
#[derive(Debug)]
pub struct Open {
    /// Of its `accepted`.
    pub id: u64,
    /// What its end wants; `None` once there is one.
    reserve: Option<usize>,
}

impl Open {
    pub fn ended(id: u64) -> Self {
        Self { id, reserve: None }
    }
}

/// Records that should be on the disk soon.
#[derive(Debug, Clone, Copy)]
pub struct Lazy {
    since: Instant,
    last: u64,
}

/// See the module.
// Four facts that hold independently of one another.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug)]
pub struct State {
    pub folder: Arc<dyn Folder>,
    pub limits: Limits,
    pub memory_bytes: usize,
    pub sequence: Sequence,
    /// A server has said what it has stored...
    pub met: bool,
    /// ...and that fitted what was known here.
    pub stored: Option<u64>,
    /// Other numbers that the disk has not got yet.
    pub rebases: Vec<Rebase>,
    /// It is there.
    pub connected: bool,
    pub acked: u64,
    /// No Poseidon is configured: what is there makes room for what comes, oldest first.
    pub alone: bool,
    pub open: HashMap<String, Open>,
    /// Also while `memory` is in use: as far as it can be read.
    pub disk: Option<Disk>,
    /// In use where there is one.
    pub memory: Option<Memory>,
    pub lazy: Option<Lazy>,
    /// When the disk was last waited for.
    pub synced_at: Option<Instant>,
    /// The disk failed with something unsynced: from this segment on it may hold less than it shows.
    pub suspect: Option<u32>,
    pub id_changed: bool,
    /// See [`Settings::goes_on`].
    pub goes_on: Option<String>,
    pub dropped: u64,
    /// Of disks before this one.
    pub counts: Counts,
    pub retry: Duration,
}

impl State {
    /// Opens what there is.
    pub fn open(settings: &Settings, folder: Arc<dyn Folder>, state: Arc<dyn Folder>) -> Self {
        let mut new = Self {
            folder,
            limits: Limits {
                bytes: settings.bytes,
                sync: settings.sync,
            },
            memory_bytes: settings.memory_bytes,
            sequence: Sequence::new(state),
            met: false,
            stored: None,
            rebases: Vec::new(),
            connected: false,
            acked: 0,
            alone: false,
            open: HashMap::new(),
            disk: None,
            memory: None,
            lazy: None,
            synced_at: None,
            suspect: None,
            id_changed: false,
            goes_on: settings.goes_on.clone(),
            dropped: 0,
            counts: Counts::default(),
            retry: RETRY,
        };
        let mut interrupted = HashMap::new();
        let fault = match open::open(&new.folder, new.limits) {
            Ok(opened) => {
                if let Some(ctime) = opened.ctime {
                    clock::set_floor(ctime);
                }
                new.acked = opened.acked;
                new.sequence.found(opened.disk.last());
                new.disk = Some(opened.disk);
                interrupted = opened.open;
                opened.fault
            }
            Err(fault) => Some(fault),
        };
        // The numbers go on where an earlier life stopped also where the disk is of no use.
        let reserved = new.sequence.reserve();
        if let Some(fault) = fault.or(reserved.err()) {
            new.fail(&fault);
        }
        new.interrupt(interrupted);
        new.id_changed = false;
        new
    }

    /// Gives an end to the jobs of an earlier life.
    pub fn interrupt(&mut self, open: HashMap<String, Record>) {
        let mut open: Vec<Record> = open.into_values().collect();
        open.sort_by_key(|r| r.id);
        for accepted in &open {
            if self.goes_on.as_ref() == Some(&accepted.token) {
                let open = Open {
                    id: accepted.id,
                    reserve: Some(SMALLEST_END),
                };
                self.open.insert(accepted.token.clone(), open);
                continue;
            }
            log::warn!(
                "job {} had not ended when the agent or the device stopped: it counts as interrupted",
                accepted.token
            );
            self.store(Draft::interrupted(accepted));
            if let Some(memory) = &mut self.memory {
                memory.owe(&accepted.token);
            }
        }
        self.sync();
    }

    pub fn on_disk(&mut self) -> Option<&mut Disk> {
        self.disk.as_mut().filter(|_| self.memory.is_none())
    }

    /// Runs `act` on the disk; where that fails the journal is in memory. `None` in memory.
    pub fn with_disk<T>(&mut self, act: impl FnOnce(&mut Disk) -> Result<T, Fault>) -> Option<T> {
        match act(self.on_disk()?) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.fail(&fault);
                None
            }
        }
    }

    /// Makes room for so many bytes and the ends of all open jobs; says whether they fit.
    pub fn room(&mut self, bytes: usize) -> bool {
        let reserved: usize = self
            .open
            .values()
            .filter_map(|o| o.reserve)
            .map(|wish| self.reserve(wish))
            .sum();
        let needed = bytes + reserved + LOSS_BYTES;
        // Without any Poseidon also what nobody has, in the end.
        let expendable = [Some(self.acked), self.alone.then(|| self.last())];
        let mut lost = Lost::default();
        let (fits, fault) = match (&mut self.memory, &mut self.disk) {
            (Some(memory), disk) => {
                let mut elsewhere = |id| disk.as_mut().is_some_and(|disk| disk.holds(id));
                for through in expendable.into_iter().flatten() {
                    lost += memory.make_room(needed, through, &self.open, &mut elsewhere);
                }
                (memory.fits(needed), None)
            }
            (None, Some(disk)) => {
                let needed = needed as u64;
                let made = expendable
                    .into_iter()
                    .flatten()
                    .try_for_each(|through| disk.make_room(needed, through, &self.open, &mut lost));
                (disk.fits(needed), made.err())
            }
            (None, None) => (false, None),
        };
        if let Some(fault) = fault {
            self.fail(&fault);
            self.lose(lost);
            // In memory less is kept free for the ends of jobs.
            return self.room(bytes);
        }
        self.lose(lost);
        fits
    }

    /// What of a job's wish for its end is kept free.
    fn reserve(&self, wish: usize) -> usize {
        let most = match &self.memory {
            Some(_) => self.memory_bytes / MEMORY_RESERVE,
            None => usize::try_from(self.limits.bytes / DISK_RESERVE).unwrap_or(usize::MAX),
        };
        wish.min(most.max(SMALLEST_END)).max(SMALLEST_END)
    }

    /// Gives a number and stores, on the disk or in memory; not synced.
    pub fn store(&mut self, draft: Draft) -> Record {
        if let Err(fault) = self.sequence.reserve()
            && self.memory.is_none()
        {
            self.fail(&fault);
        }
        let record = draft.record(self.sequence.take());
        let acked = self.acked;
        let stored = self.with_disk(|disk| disk.append(&record, acked));
        if stored.is_none()
            && let Some(memory) = &mut self.memory
        {
            memory.push(record.clone());
        }
        record
    }

    /// See [`super::Journal::accept`].
    pub fn accept(&mut self, job: &Acceptance<'_>) -> Result<(), Refusal> {
        self.recover();
        let failed = |state: &mut Self, fault: &Fault| {
            if state.memory.is_none() {
                state.fail(fault);
            }
            Err(Refusal::Failed(fault.to_string()))
        };
        match self.standing(job.token) {
            Ok(None) => {}
            Ok(Some(standing)) => return Err(Refusal::Known(standing)),
            Err(fault) => return failed(self, &fault),
        }
        let was_in_memory = self.memory.is_some();
        let data =
            serde_json::json!({ "what": beginning(job.what, WHAT_LIMIT), "origin": job.origin })
                .to_string();
        let draft = Draft::new(job.token, code::ACCEPTED, Some(job.conversation), data);
        // The end has a line of its own around what the job asks for.
        let reserve = job.reserve + draft.bound();
        let fits = self.room(draft.bound() + self.reserve(reserve));
        if !was_in_memory && self.memory.is_some() {
            return Err(Refusal::Failed(self.reason()));
        }
        if !fits {
            return Err(Refusal::Full(self.full()));
        }
        if !was_in_memory && let Err(fault) = self.sequence.reserve() {
            return failed(self, &fault);
        }
        let id = if was_in_memory {
            self.store(draft).id
        } else {
            let record = draft.record(self.sequence.take());
            let acked = self.acked;
            let token = job.token;
            let stored = self.with_disk(|disk| {
                disk.append(&record, acked)?;
                // A job that is refused must not be found at the next start.
                disk.sync().inspect_err(|_| disk.take_back(token))
            });
            if stored.is_none() {
                return Err(Refusal::Failed(self.reason()));
            }
            record.id
        };
        let reserve = Some(reserve);
        self.open.insert(job.token.to_owned(), Open { id, reserve });
        Ok(())
    }

    fn reason(&self) -> String {
        self.memory
            .as_ref()
            .map_or_else(String::new, |m| m.reason.clone())
    }

    /// See [`super::Journal::end`].
    pub fn end(&mut self, token: &str, conversation: &str, code: u32, data: String) {
        self.recover();
        // Its room is free now, but its `accepted` stays until there is an end to follow it.
        if let Some(open) = self.open.get_mut(token) {
            open.reserve = None;
        }
        let mut draft = Draft::new(token, code, Some(conversation), data);
        if draft.is_huge() || !self.room(draft.bound()) {
            draft.cut();
            self.room(draft.bound());
        }
        self.store(draft);
        self.open.remove(token);
        if self.connected {
            self.sync_soon();
        } else {
            self.sync();
        }
    }

    /// See [`super::Journal::put`].
    pub fn put(&mut self, put: &HistoryPut) -> Result<Record, payload::Error> {
        let draft = Draft::value(put)?;
        self.recover();
        if !self.room(draft.bound()) {
            return Err(payload::Error::new(ErrorCode::Busy, self.full()));
        }
        let record = self.store(draft);
        self.sync();
        Ok(record)
    }

    pub fn sync_soon(&mut self) {
        let last = self.sequence.last();
        let since = self.waits().map_or_else(Instant::now, |lazy| lazy.since);
        self.lazy = Some(Lazy { since, last });
    }

    /// See [`super::Journal::keeps`].
    pub fn keeps(&self, id: u64) -> bool {
        let safe = self.disk.as_ref().map_or(0, Disk::safe);
        id <= self.acked.max(safe)
    }

    /// See [`super::Journal::close`].
    pub fn close(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.next_try = Instant::now();
        }
        self.recover();
        self.sync_waiting();
        if let Some(memory) = &self.memory {
            let here = memory.records().filter(|r| !self.keeps(r.id)).count();
            if here > 0 {
                log::error!(
                    "{here} records that Poseidon does not have are lost with this process: {}",
                    memory.reason
                );
            }
        }
    }

    /// What waits for [`Self::sync`].
    fn waits(&self) -> Option<Lazy> {
        let dirty = self.limits.sync
            && self.memory.is_none()
            && self.disk.as_ref().is_some_and(|d| d.dirty);
        self.lazy.filter(|lazy| dirty && lazy.last > self.acked)
    }

    /// See [`super::Journal::sync_due`].
    pub fn sync_due(&self) -> Option<Instant> {
        let lazy = self.waits()?;
        if self.connected {
            return Some(lazy.since + LAZY);
        }
        let rested = self.synced_at.map(|at| at + EVENT_PAUSE);
        Some(rested.map_or(lazy.since, |at| at.max(lazy.since)))
    }

    /// Waits for the disk, whatever for.
    pub fn sync(&mut self) {
        self.with_disk(Disk::sync);
        self.synced_at = Some(Instant::now());
        self.lazy = None;
    }

    /// See [`super::Journal::sync`].
    pub fn sync_waiting(&mut self) {
        if self.waits().is_some() {
            self.sync();
        }
    }

    /// See [`super::Journal::acknowledge`].
    pub fn acknowledge(&mut self, through: u64) {
        self.acked = self.acked.max(through.min(self.sequence.last()));
    }

    /// See [`super::Journal::disconnected`].
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.sync();
    }

    /// Where a token stands; an error where it is known and its record cannot be read.
    pub fn standing(&mut self, token: &str) -> Result<Option<Standing>, Fault> {
        if self.open.contains_key(token) {
            return Ok(Some(Standing::Open));
        }
        let in_memory = self.memory.as_ref().and_then(|m| m.find(token)).cloned();
        let record = match (in_memory, &mut self.disk) {
            (Some(record), _) if code::is_end(record.code) => Some(record),
            // It may have taken over that the job was accepted, and had no room for its end.
            (record, Some(disk)) => disk.find(token)?.or(record),
            (record, None) => record,
        };
        Ok(record.map(|record| {
            if code::is_end(record.code) {
                Standing::Ended(Box::new(record))
            } else {
                Standing::Open
            }
        }))
    }

    /// See [`super::Journal::next`].
    pub fn next(&mut self, id: u64) -> Option<Record> {
        // What is on a disk that failed is sent from there as long as it can be read.
        let on_disk = match self
            .disk
            .as_mut()
            .map(|disk| disk.next(id, self.memory.is_some()))
        {
            None => None,
            Some(Ok(record)) => record,
            Some(Err(fault)) => {
                if self.memory.is_none() {
                    self.fail(&fault);
                }
                None
            }
        };
        let in_memory = self.memory.as_ref().and_then(|m| m.next(id));
        match (on_disk, in_memory) {
            (Some(disk), Some(memory)) if memory.id < disk.id => Some(memory.clone()),
            (Some(disk), _) => Some(disk),
            (None, memory) => memory.cloned(),
        }
    }

    pub fn last(&self) -> u64 {
        self.sequence.last()
    }
}

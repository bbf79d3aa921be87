//! The journal while the folder cannot be used.

use super::record::{Lost, is_event, line_bound, shorten};
use super::renumber::Rebase;
use super::state::Open;
use crate::message::id;
use crate::message::payload::{Record, code};
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// Where events have to go, this part of the room is won at once: else each event that comes would cost one, and a record
/// that says so.
const SLICE: usize = 16;

/// Records in memory, oldest first.
#[derive(Debug)]
pub struct Memory {
    /// Names this journal.
    pub id: String,
    /// Why it is not on the disk.
    pub reason: String,
    /// When the disk is tried again.
    pub next_try: Instant,
    limit: usize,
    records: VecDeque<Record>,
    bytes: usize,
    /// Jobs that the disk shows as open: their ends stay here until it has them, or it would end them once more.
    /// Sorted.
    owed: Vec<String>,
}

fn size(record: &Record) -> usize {
    line_bound(
        &record.token,
        record.conversation.as_deref(),
        record.data.get().len(),
    )
}

impl Memory {
    /// An empty one. `owed` are the jobs that the disk shows as open.
    pub fn new(limit: usize, reason: String, next_try: Instant, mut owed: Vec<String>) -> Self {
        owed.sort();
        Self {
            id: id::random(),
            reason,
            next_try,
            limit,
            records: VecDeque::new(),
            bytes: 0,
            owed,
        }
    }

    /// The disk shows this job as open, too.
    pub fn owe(&mut self, token: &str) {
        if let Err(at) = self.owed.binary_search_by(|owed| owed.as_str().cmp(token)) {
            self.owed.insert(at, token.to_owned());
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the records behind `id`.
    pub fn bytes_behind(&self, id: u64) -> usize {
        self.records.iter().filter(|r| r.id > id).map(size).sum()
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// Adds a record, whose id is the highest. It is the caller's to ask for room before.
    pub fn push(&mut self, record: Record) {
        self.bytes += size(&record);
        self.records.push_back(record);
    }

    /// Takes over records of the disk, in any order, up to half of the room unless they `must`: the rest is for
    /// what comes.
    pub fn carry(&mut self, record: Record, must: bool) {
        if !must && self.bytes + size(&record) > self.limit / 2 {
            return;
        }
        let at = self.records.partition_point(|r| r.id < record.id);
        self.bytes += size(&record);
        self.records.insert(at, record);
    }

    /// The first record behind `id`.
    pub fn next(&self, id: u64) -> Option<&Record> {
        self.records
            .get(self.records.partition_point(|r| r.id <= id))
    }

    /// The last record about the job.
    pub fn find(&self, token: &str) -> Option<&Record> {
        self.records
            .iter()
            .rev()
            .find(|r| r.token == token && code::is_job(r.code))
    }

    /// Whether so many bytes more fit.
    pub fn fits(&self, needed: usize) -> bool {
        self.bytes + needed <= self.limit
    }

    /// Makes room as far as possible; returns what events that took. What is `elsewhere` too is not lost.
    pub fn make_room(
        &mut self,
        needed: usize,
        acked: u64,
        open: &HashMap<String, Open>,
        mut elsewhere: impl FnMut(u64) -> bool,
    ) -> Lost {
        let mut lost = Lost::default();
        let owed = std::mem::take(&mut self.owed);
        let is_owed = |r: &Record| code::is_end(r.code) && owed.binary_search(&r.token).is_ok();
        self.drop_while(
            needed,
            |r| r.id <= acked && !is_open(open, r) && !is_owed(r),
            |_| {},
        );
        if !self.fits(needed) {
            for record in &mut self.records {
                if record.id <= acked && is_owed(record) {
                    self.bytes -= size(record);
                    shorten(record);
                    self.bytes += size(record);
                }
            }
        }
        self.owed = owed;
        if !self.fits(needed) {
            let see = |r: &Record| {
                if !elsewhere(r.id) {
                    lost.add(r);
                }
            };
            self.drop_while(needed + self.limit / SLICE, |r| is_event(r.code), see);
        }
        lost
    }

    /// Drops the oldest events where they and `needed` bytes more take more than `share`; returns what that took of what
    /// nobody has. What is `elsewhere` too is not lost.
    pub fn bound_events(
        &mut self,
        needed: usize,
        share: usize,
        acked: u64,
        mut elsewhere: impl FnMut(u64) -> bool,
    ) -> Lost {
        let mut lost = Lost::default();
        let of_events = |r: &&Record| is_event(r.code);
        let mut bytes: usize = self.records.iter().filter(of_events).map(size).sum();
        if bytes + needed <= share {
            return lost;
        }
        let goal = share - share / SLICE;
        self.records.retain(|record| {
            let goes = bytes + needed > goal && is_event(record.code);
            if goes {
                bytes -= size(record);
                self.bytes -= size(record);
                if record.id > acked && !elsewhere(record.id) {
                    lost.add(record);
                }
            }
            !goes
        });
        lost
    }

    /// Drops the oldest that `may` go, until `needed` bytes fit.
    fn drop_while(
        &mut self,
        needed: usize,
        may: impl Fn(&Record) -> bool,
        mut see: impl FnMut(&Record),
    ) {
        let mut at = 0;
        while !self.fits(needed) && at < self.records.len() {
            if !may(&self.records[at]) {
                at += 1;
            } else if let Some(record) = self.records.remove(at) {
                self.bytes -= size(&record);
                see(&record);
            }
        }
    }

    /// Gives other ids.
    pub fn renumber(&mut self, rebase: Rebase) {
        for record in &mut self.records {
            record.id = rebase.apply(record.id);
        }
    }
}

/// Whether it is the `accepted` of a job without an end.
pub fn is_open(open: &HashMap<String, Open>, record: &Record) -> bool {
    record.code == code::ACCEPTED && open.get(&record.token).is_some_and(|o| o.id == record.id)
}

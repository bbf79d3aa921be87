//! How the journal is.

use super::Report;
use super::disk::Disk;
use super::state::State;
use super::store::Counts;
use crate::message::payload::JournalState;

impl State {
    /// Why a job or a value is refused.
    pub fn full(&mut self) -> String {
        let what = if self.alone {
            "the jobs that run need all".to_owned()
        } else {
            format!("{} records wait for Poseidon in", self.waiting())
        };
        match &self.memory {
            Some(memory) => format!(
                "the journal is full: {what} journal.memory_bytes ({}); it is in memory: {}",
                self.memory_bytes, memory.reason
            ),
            None => format!(
                "the journal is full: {what} journal.bytes ({})",
                self.limits.bytes
            ),
        }
    }

    /// Records that nobody has acknowledged.
    fn waiting(&mut self) -> u64 {
        let acked = self.acked;
        let disk = self.disk.as_mut();
        let mut count = disk.map_or(0, |d| d.count_behind(acked).unwrap_or(0));
        if let Some(memory) = &self.memory {
            let behind = self.disk.as_ref().map_or(0, Disk::last).max(acked);
            count += memory.records().filter(|r| r.id > behind).count() as u64;
        }
        count
    }

    /// See [`super::Journal::report`].
    pub fn report(&mut self) -> Report {
        let waiting = self.waiting();
        let last = self.sequence.last();
        let (disk, memory) = (self.disk.as_ref(), self.memory.as_ref());
        let first = match (disk.map_or(0, Disk::first), memory) {
            (0, Some(memory)) => memory.next(0).map_or(0, |r| r.id),
            (first, _) => first,
        };
        let mut counts = self.counts;
        counts += self.sequence.counts;
        counts += disk.map_or(Counts::default(), |d| d.counts);
        Report {
            state: JournalState {
                id: match (memory, disk) {
                    (Some(memory), _) => memory.id.clone(),
                    (None, disk) => disk.map_or_else(String::new, |d| d.id.clone()),
                },
                state: if memory.is_some() { "memory" } else { "disk" }.to_owned(),
                reason: memory.map(|m| m.reason.clone()),
                first,
                last,
            },
            acked: self.acked,
            waiting,
            bytes: memory.map_or(disk.map_or(0, Disk::bytes), |m| m.bytes() as u64),
            limit: memory.map_or(self.limits.bytes, |_| self.memory_bytes as u64),
            dropped: self.dropped,
            damaged: disk.map_or(0, |d| d.damaged),
            written_bytes: counts.bytes,
            syncs: counts.syncs,
        }
    }
}

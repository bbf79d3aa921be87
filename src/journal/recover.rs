//! A disk that fails, and that works again.

use super::memory::Memory;
use super::open::{self, Opened};
use super::record::Lost;
use super::renumber::Rebase;
use super::state::{Open, State};
use super::store::Fault;
use crate::message::payload::{Record, code};
use std::collections::HashMap;
use std::time::Instant;

impl State {
    /// The disk cannot be used: goes on in memory, under another id.
    pub fn fail(&mut self, fault: &Fault) {
        let reason = fault.to_string();
        log::error!("the journal goes on in memory: {reason}");
        let owed = self.open.keys().cloned().collect();
        let mut memory = Memory::new(self.memory_bytes, reason, Instant::now() + self.retry, owed);
        if let Some(disk) = &mut self.disk {
            // Before what is taken over: a disk that is full can mostly be synced.
            if disk.is_suspect() {
                self.suspect.get_or_insert(disk.active().number);
            }
            // It may become unreadable: what nobody else has is taken over as far as there is room, jobs first.
            let safe = disk.safe();
            let from = self.acked.min(safe);
            for jobs in [true, false] {
                let mut id = from;
                while let Ok(Some(record)) = disk.next(id, true) {
                    id = record.id;
                    if code::is_job(record.code) == jobs {
                        memory.carry(record, id > safe);
                    }
                }
            }
        }
        self.memory = Some(memory);
        self.lazy = None;
        self.id_changed = true;
        // What must be carried may be more than events may have there.
        self.trim_events(0);
    }

    /// Tries the disk again where that is due.
    pub fn recover(&mut self) {
        let Some(memory) = &mut self.memory else {
            return;
        };
        if Instant::now() < memory.next_try {
            return;
        }
        memory.next_try = Instant::now() + self.retry;
        let mut lost = Lost::default();
        let back = self.come_back(&mut lost);
        match back {
            Ok(interrupted) => {
                log::info!("the journal is in {} again", self.folder.path().display());
                self.id_changed = true;
                self.lose(lost);
                self.interrupt(interrupted);
            }
            Err(fault) => {
                log::debug!("the journal stays in memory: {fault}");
                if let Some(memory) = &mut self.memory {
                    memory.reason = fault.to_string();
                }
                self.lose(lost);
            }
        }
    }

    /// Goes back to the disk; returns the jobs of an earlier life that it shows. `lost` counts what events had to go, also
    /// where it stays in memory.
    fn come_back(&mut self, lost: &mut Lost) -> Result<HashMap<String, Record>, Fault> {
        self.sequence.reserve()?;
        let mut opened = open::open(&self.folder, self.limits)?;
        if let Some(fault) = opened.fault {
            return Err(fault);
        }
        let joined = self.join(&mut opened, lost);
        if joined.is_err() && opened.disk.is_suspect() {
            self.suspect.get_or_insert(opened.disk.active().number);
        }
        if joined.is_err() && self.disk.is_none() {
            self.counts += opened.disk.counts;
        } else if let Some(old) = self.disk.replace(opened.disk) {
            // Also after a failure: its segments may be others now, and what is known of a token is read from there.
            self.counts += old.counts;
        }
        joined?;
        self.suspect = None;
        self.memory = None;
        Ok(opened.open)
    }

    /// Writes what the disk lacks.
    fn join(&mut self, opened: &mut Opened, lost: &mut Lost) -> Result<(), Fault> {
        let disk = &mut opened.disk;
        let Some(memory) = &mut self.memory else {
            return Ok(());
        };
        if self.disk.is_none() {
            // Never seen in this life: its numbers may be the ones that were given meanwhile.
            if let Some(first) = memory.next(0).map(|r| r.id)
                && first <= disk.last()
            {
                let delta = disk.last() - first + 1;
                memory.renumber(Rebase {
                    from: 0,
                    through: u64::MAX,
                    delta,
                });
                for open in self.open.values_mut() {
                    open.id += delta;
                }
                self.sequence.raise(self.sequence.last() + delta);
            }
            self.sequence.found(disk.last());
        }
        if let Some(number) = self.suspect {
            disk.rewrite_from(number)?;
        }
        for rebase in &self.rebases {
            disk.renumber(*rebase)?;
            for record in opened.open.values_mut() {
                record.id = rebase.apply(record.id);
            }
        }
        let newest = disk.last();
        // The ends of these are not on the disk yet.
        let pinned = opened
            .open
            .values()
            .map(|r| (r.token.clone(), Open::ended(r.id)));
        let needed = memory.bytes_behind(newest) as u64;
        disk.make_room(needed, self.acked, &pinned.collect(), lost)?;
        for record in memory.records().filter(|r| r.id > newest) {
            disk.append(record, self.acked)?;
            if code::is_job(record.code) {
                opened.open.remove(&record.token);
            }
        }
        if self.disk.is_none() {
            // What it holds was passed over by what has been sent from memory meanwhile.
            let stored = self.stored.unwrap_or(opened.acked);
            if self.met || self.acked > stored {
                let sequence = &mut self.sequence;
                disk.move_up(stored, newest, self.acked, || sequence.take())?;
            }
            self.acked = self.acked.max(stored);
        }
        disk.sync()?;
        opened
            .open
            .retain(|token, _| !self.open.contains_key(token));
        if !self.rebases.is_empty() {
            self.sequence.settle()?;
            self.rebases.clear();
        }
        Ok(())
    }
}

//! Events: they have a share of the journal, and where that is full the oldest are dropped and counted.

use super::record::{Draft, Lost};
use super::state::{EVENT_PAUSE, State};
use crate::message::payload::{self, ErrorCode};

/// Events take at most one part of so many: else they would drive out what is known of jobs that have ended.
const EVENT_SHARE: u32 = 2;

impl State {
    /// See [`super::Journal::events`].
    pub fn events(&mut self, drafts: Vec<Draft>) -> Result<u64, payload::Error> {
        self.recover();
        let bytes: usize = drafts.iter().map(Draft::bound).sum();
        self.bound_events(bytes)?;
        if !self.room(bytes) {
            return Err(payload::Error::new(ErrorCode::Busy, self.full()));
        }
        let mut last = self.last();
        for draft in drafts {
            last = self.store(draft).id;
        }
        // The disk may have failed just now, and the memory holds less.
        self.trim_events(0);
        let rested = self.synced_at.is_none_or(|at| at.elapsed() >= EVENT_PAUSE);
        if self.connected || !rested {
            self.sync_soon();
        } else {
            self.sync();
        }
        Ok(last)
    }

    /// What events may take.
    fn event_share(&self) -> u64 {
        let all = match &self.memory {
            Some(_) => self.memory_bytes as u64,
            None => self.limits.bytes,
        };
        all / u64::from(EVENT_SHARE)
    }

    /// Makes room for events within what they may take, at the cost of the oldest of them.
    fn bound_events(&mut self, bytes: usize) -> Result<(), payload::Error> {
        let share = self.event_share();
        if bytes as u64 > share {
            let place = match &self.memory {
                Some(memory) => format!("; the journal is in memory: {}", memory.reason),
                None => String::new(),
            };
            let message = format!(
                "these events take {bytes} bytes of the journal, and all events have {share}; send fewer at once{place}"
            );
            return Err(payload::Error::new(ErrorCode::TooLarge, message));
        }
        if self.memory.is_some() {
            self.trim_events(bytes);
            return Ok(());
        }
        let mut lost = Lost::default();
        let bound = match &mut self.disk {
            Some(disk) => disk.bound_events(bytes as u64, share, self.acked, &mut lost),
            None => Ok(()),
        };
        if let Err(fault) = bound {
            self.fail(&fault);
            self.lose(lost);
            // They have less in memory.
            return self.bound_events(bytes);
        }
        self.lose(lost);
        Ok(())
    }

    /// The same in memory, if that is in use.
    pub fn trim_events(&mut self, bytes: usize) {
        let share = usize::try_from(self.event_share()).unwrap_or(usize::MAX);
        let Some(memory) = &mut self.memory else {
            return;
        };
        let disk = &mut self.disk;
        let elsewhere = |id| disk.as_mut().is_some_and(|disk| disk.holds(id));
        let lost = memory.bound_events(bytes, share, self.acked, elsewhere);
        self.lose(lost);
    }

    /// Says that events were dropped.
    pub fn lose(&mut self, lost: Lost) {
        if lost.all() > 0 {
            self.dropped += lost.now;
            log::warn!(
                "{} events were dropped: the journal is full of what Poseidon has not stored",
                lost.now
            );
            self.store(Draft::loss(lost.all()));
            self.sync_soon();
        }
    }
}

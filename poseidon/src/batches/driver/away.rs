//! Members whose device is down: they are waited for, told of a cancel when they are back, and given up in the end.

use super::super::{Cancel, outcome};
use super::Driver;
use crate::agents::Key;
use crate::agents::order::{self, CancelError};
use crate::agents::registry::Presence;
use crate::events::Change;
use crate::jobs::{Live, lock};
use crate::store::batches::{MemberEnd, MemberState};
use crate::time::now;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// After a cancel a device that is down is waited for so long. Its job may run on; nobody can tell.
const CANCEL_WAIT: Duration = Duration::from_mins(1);

impl Driver {
    /// Ends members that are waited for no longer.
    pub(super) fn give_up(&mut self) {
        let over = match self.batch.row.expires {
            Some(expires) => expires <= now(),
            None => self.patience <= Instant::now(),
        };
        if over {
            let away: Vec<usize> = self.away.drain().map(|(_, at)| at).collect();
            for at in away {
                self.end(at, false, outcome::offline());
            }
        }
        let Some((grace, until)) = self.cancelled else {
            return;
        };
        if until > Instant::now() {
            return;
        }
        let down = |live: &Live| match self.app.registry.presence(&live.key()) {
            Presence::Up => false,
            Presence::Down(since) => since.elapsed() >= CANCEL_WAIT,
            Presence::Unknown => true,
        };
        let gone: Vec<usize> = self
            .open
            .iter()
            .filter(|(_, (live, _))| down(live))
            .map(|(at, _)| *at)
            .collect();
        for at in gone {
            let told = !self.unsent.values().any(|unsent| *unsent == at);
            let reason = if told {
                "the device went away before it said how its job ended; it may run on there"
            } else {
                "the device went away before it was told of the end of the batch; its job may run on there"
            };
            self.abandon(at, MemberEnd::new(MemberState::Offline, reason));
        }
        let next = Instant::now() + CANCEL_WAIT;
        let first = self.first_down_for(CANCEL_WAIT);
        self.cancelled = Some((grace, first.map_or(next, |first| first.min(next))));
    }

    /// Ends members whose device went while their job ran, and stayed away for too long: else a canary that dies would hold
    /// up the batch for ever. Where the batch may wait for devices it waits for these as well.
    pub(super) fn give_up_running(&mut self) {
        let patience = self.app.settings.batch_patience;
        let waits = self.waits_for_all();
        let mut gone = Vec::new();
        for (at, (live, _)) in &self.open {
            let reason = match self.app.registry.presence(&live.key()) {
                Presence::Down(since) if !waits && since.elapsed() >= patience => format!(
                    "the device went away while its job ran, and did not come back for {} s; the job may run on there",
                    patience.as_secs()
                ),
                Presence::Unknown => {
                    "the device was forgotten while its job ran; the job may run on there"
                        .to_owned()
                }
                Presence::Up | Presence::Down(_) => continue,
            };
            gone.push((*at, MemberEnd::new(MemberState::Failed, reason)));
        }
        for (at, end) in gone {
            self.abandon(at, end);
        }
    }

    /// Whether the batch waits for devices that are down, as long as it lasts.
    pub(super) fn waits_for_all(&self) -> bool {
        self.batch.row.expires.is_some_and(|at| at > now())
    }

    /// Ends a member whose job has not ended, as far as anybody knows.
    fn abandon(&mut self, at: usize, end: MemberEnd) {
        if let Some((live, handle)) = self.open.remove(&at) {
            handle.abort();
            self.unsent.remove(&live.key());
            self.end(at, true, end);
        }
    }

    /// When the first of those that are down was so for this long.
    pub(super) fn first_down_for(&self, patience: Duration) -> Option<Instant> {
        let down =
            |(live, _): &(Arc<Live>, AbortHandle)| match self.app.registry.presence(&live.key()) {
                Presence::Down(since) => Some(Instant::from_std(since) + patience),
                Presence::Up | Presence::Unknown => None,
            };
        self.open.values().filter_map(down).min()
    }

    /// Tells those that run, once for each cancel; those that are down when they come back.
    pub(super) async fn heed_cancel(&mut self) {
        let cancel = lock(&self.batch.standing).cancel.take();
        if let Some(Cancel {
            grace_seconds: grace,
        }) = cancel
        {
            let until = self.patience.max(Instant::now() + CANCEL_WAIT);
            self.cancelled = Some((grace, until));
            let all: Vec<usize> = self.open.keys().copied().collect();
            for at in all {
                self.tell(at, grace).await;
            }
        } else if let Some((grace, _)) = self.cancelled {
            let back: Vec<usize> = self
                .unsent
                .iter()
                .filter(|(key, _)| self.app.registry.connection(key).is_some())
                .map(|(_, at)| *at)
                .collect();
            for at in back {
                self.tell(at, grace).await;
            }
        }
    }

    async fn tell(&mut self, at: usize, grace: Option<f64>) {
        let Some((live, _)) = self.open.get(&at) else {
            return;
        };
        let live = live.clone();
        match order::cancel(&self.app, &live, grace).await {
            Ok(_) => {
                self.unsent.remove(&live.key());
            }
            Err(CancelError::Down | CancelError::Busy) => {
                self.unsent.insert(live.key(), at);
            }
        }
    }

    /// Whether there is something to do now.
    pub(super) fn hear(&mut self, change: Result<Change, RecvError>) -> bool {
        match change {
            Ok(Change::Agent(key) | Change::Removed { key, .. }) => self.look(&key),
            Ok(_) => false,
            Err(_) => {
                // Too much came at once: any of them may be back, or gone for good.
                let all: Vec<Key> = self.away.keys().cloned().collect();
                for key in all {
                    self.look(&key);
                }
                true
            }
        }
    }

    /// One that is back gets its turn, or its cancel; one that was forgotten never comes.
    fn look(&mut self, key: &Key) -> bool {
        if !self.away.contains_key(key) && !self.unsent.contains_key(key) {
            return false;
        }
        let is_up = self.app.registry.connection(key).is_some();
        if !is_up && self.app.registry.knows(key) {
            return false;
        }
        let Some(at) = self.away.remove(key) else {
            return is_up;
        };
        if is_up {
            self.ready.push_back(at);
        } else {
            self.end(at, false, outcome::forgotten());
        }
        true
    }
}

//! Which members get their jobs now, and when no more do.

use super::super::{Cancel, end_of, is_failure, outcome};
use super::{Driver, RETRY};
use crate::agents::order::{self, Order, OrderError};
use crate::agents::registry::Target;
use crate::jobs::{Live, lock};
use crate::store::Store;
use crate::store::batches::{MemberEnd, MemberState, Stopped};
use std::sync::Arc;
use tokio::time::sleep;

/// Jobs that are stored in one call, so that others get their turn at the store.
const AT_ONCE: usize = 100;

impl Driver {
    /// Which members have jobs already: all of those that were started before a restart.
    pub(super) async fn find_jobs(&mut self) {
        let waiting: Vec<(usize, String)> = {
            let standing = lock(&self.batch.standing);
            let members = standing.members.iter().enumerate();
            let waiting = members.filter(|(_, member)| member.end.is_none());
            waiting.map(|(at, m)| (at, m.token.clone())).collect()
        };
        // Open ones first: one that ends meanwhile is watched by then.
        let mut rest = Vec::new();
        for (at, token) in waiting {
            match self.app.jobs.open(&token) {
                Some(live) => self.watch(at, live),
                None => rest.push((at, token)),
            }
        }
        let ended = loop {
            let tokens: Vec<String> = rest.iter().map(|(_, token)| token.clone()).collect();
            let call = move |store: &mut dyn Store| {
                let ended = |token: &String| Ok(store.job(token)?.map(|job| end_of(&job)));
                tokens.iter().map(ended).collect()
            };
            match self.app.db.call::<Vec<Option<MemberEnd>>, _>(call).await {
                Ok(ended) => break ended,
                // Without it nothing may be started: a job could run twice.
                Err(e) => self.failed(&e),
            }
            sleep(RETRY).await;
        };
        for ((at, _), end) in rest.into_iter().zip(ended) {
            match end {
                Some(end) => {
                    self.note_start(at);
                    self.end(at, true, end);
                }
                None => self.ready.push_back(at),
            }
        }
        let mut standing = lock(&self.batch.standing);
        if standing.stopped == Some(Stopped::Cancelled) {
            standing.cancel.get_or_insert(Cancel {
                grace_seconds: None,
            });
        }
    }

    fn note_start(&self, at: usize) {
        self.batch.change(|standing| {
            standing.members[at].started = true;
            standing.order.push(at);
        });
    }

    /// A member has a job.
    pub(super) fn watch(&mut self, at: usize, live: Arc<Live>) {
        self.note_start(at);
        let mut written = live.written();
        let waited = live.clone();
        let handle = self.running.spawn(async move {
            // The sender lives as long as the job here does.
            let _ = written.wait_for(|written| written.ended).await;
            (at, waited.job())
        });
        self.open.insert(at, (live, handle));
    }

    /// Jobs so far that say something of what is asked, and those of them that succeeded and failed.
    fn tally(&self) -> [u32; 3] {
        let standing = lock(&self.batch.standing);
        let mut tally = [0; 3];
        for member in &standing.members {
            let state = member.end.as_ref().map(|end| end.state);
            // In the place of one that went before it got its job another one may be the canary.
            tally[0] += u32::from(member.started && state != Some(MemberState::Offline));
            tally[1] += u32::from(state == Some(MemberState::Succeeded));
            tally[2] += u32::from(state.is_some_and(is_failure));
        }
        tally
    }

    /// Ends what is not started any more. Why not follows from the members' ends, so that a restart comes to the same
    /// even where it could not be stored.
    pub(super) async fn stop_where_due(&mut self) {
        let [_, succeeded, failures] = self.tally();
        let row = &self.batch.row;
        let why = if succeeded < row.canary && failures > 0 {
            Some(Stopped::Canary)
        } else if row.stop_on_failures > 0 && failures >= row.stop_on_failures {
            Some(Stopped::Failures)
        } else {
            None
        };
        let had = lock(&self.batch.standing).stopped;
        let none_left = self.ready.is_empty() && self.away.is_empty();
        if let (Some(why), None, false) = (why, had, none_left) {
            self.batch.change(|standing| standing.stopped = Some(why));
            let id = row.id.clone();
            let call = move |store: &mut dyn Store| store.stop_batch(&id, why);
            if let Err(e) = self.app.db.call(call).await {
                self.failed(&e);
            }
        }
        let Some(why) = lock(&self.batch.standing).stopped else {
            return;
        };
        let message = match why {
            Stopped::Canary => "one of the first did not succeed",
            Stopped::Failures => "too many before it failed",
            Stopped::Cancelled => "the batch was cancelled",
        };
        let left: Vec<usize> = self
            .ready
            .drain(..)
            .chain(self.away.drain().map(|(_, at)| at))
            .collect();
        for at in left {
            let end = MemberEnd::new(MemberState::NotStarted, message);
            self.end(at, false, end);
        }
    }

    pub(super) async fn start_more(&mut self) {
        while self.retry.is_none() && !*self.app.stop.borrow() {
            let [started, succeeded, _] = self.tally();
            let row = &self.batch.row;
            let running = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
            let mut room = row.concurrency.saturating_sub(running);
            if succeeded < row.canary {
                room = room.min(row.canary.saturating_sub(started));
            }
            let (mut members, mut targets, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
            while targets.len() < AT_ONCE.min(room as usize) {
                let Some(at) = self.ready.pop_front() else {
                    break;
                };
                let (key, name, token) = {
                    let member = &lock(&self.batch.standing).members[at];
                    (member.key(), member.agent.clone(), member.token.clone())
                };
                let Some((connection, journal)) = self.app.registry.connection(&key) else {
                    if self.app.registry.knows(&key) {
                        self.away.insert(key, at);
                    } else {
                        self.end(at, false, outcome::forgotten());
                    }
                    continue;
                };
                members.push(at);
                tokens.push(token);
                targets.push(Target {
                    key,
                    name,
                    connection: Some(connection),
                    journal,
                });
            }
            if targets.is_empty() {
                return;
            }
            self.give(&members, &targets, tokens).await;
        }
    }

    async fn give(&mut self, members: &[usize], targets: &[Target], tokens: Vec<String>) {
        let row = &self.batch.row;
        let order = Order {
            kind: row.kind.clone(),
            request: row.request.clone(),
            expires: row.expires,
        };
        let failure = match order::give_as(&self.app, &order, targets, tokens).await {
            Ok(jobs) => {
                self.told = false;
                for (at, live) in members.iter().zip(jobs) {
                    self.watch(*at, live);
                }
                self.news = true;
                return;
            }
            Err(failure) => failure,
        };
        match failure {
            OrderError::Busy => self.failed(&"too many jobs are open"),
            OrderError::Store(e) => self.failed(&e),
            // It was tried when the batch was made.
            OrderError::Invalid(_) | OrderError::TooLarge(_) => {
                for at in members {
                    let reason = "what is asked for cannot be written as a message";
                    let end = MemberEnd::new(MemberState::Failed, reason);
                    self.end(*at, false, end);
                }
                return;
            }
        }
        for at in members.iter().rev() {
            self.ready.push_front(*at);
        }
    }
}

//! What keeps a batch going: starts jobs as far as it may, notes their ends, stops where it should.

use super::{Batch, Cancel, end_of, is_failure, outcome};
use crate::agents::Key;
use crate::agents::order::{self, CancelError, Order, OrderError};
use crate::agents::registry::Target;
use crate::events::Change;
use crate::jobs::{Live, lock};
use crate::server::{App, stopped};
use crate::store::batches::{MemberEnd, MemberState, Stopped};
use crate::store::{Job, Store};
use crate::time::now;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// Jobs that are stored in one call, so that others get their turn at the store.
const AT_ONCE: usize = 100;
/// Where the store failed or too many jobs are open it is tried again after so long.
const RETRY: Duration = Duration::from_secs(1);
/// After a restart of Poseidon all agents are away at first, and come back within their longest back-off.
const RETURN: Duration = Duration::from_mins(5);
/// After a cancel a device that is down is waited for so long. Its job may run on; nobody can tell.
const CANCEL_WAIT: Duration = Duration::from_mins(1);
/// The clock may jump: what is due by it is looked for at least so often.
const LOOK: Duration = Duration::from_mins(1);

/// Goes on with the batches that were open when the server stopped.
pub fn resume(app: &Arc<App>, batches: Vec<Arc<Batch>>) {
    for batch in batches {
        start(app, &batch, true);
    }
}

/// Begins to drive a batch.
pub fn start(app: &Arc<App>, batch: &Arc<Batch>, resumed: bool) {
    let grace = if resumed { RETURN } else { Duration::ZERO };
    let driver = Driver {
        changes: app.events.subscribe(),
        app: app.clone(),
        batch: batch.clone(),
        ready: VecDeque::new(),
        away: HashMap::new(),
        patience: Instant::now() + grace,
        open: BTreeMap::new(),
        running: JoinSet::new(),
        cancelled: None,
        unsent: HashMap::new(),
        unwritten: Vec::new(),
        down: HashMap::new(),
        retry: None,
        told: false,
        news: false,
    };
    let drivers = app.batches.drivers.clone();
    tokio::spawn(async move {
        driver.run().await;
        drop(drivers);
    });
}

struct Driver {
    app: Arc<App>,
    batch: Arc<Batch>,
    changes: Receiver<Change>,
    /// Members whose turn comes, in order.
    ready: VecDeque<usize>,
    /// Members whose turn came while they were down, and that are waited for…
    away: HashMap<Key, usize>,
    /// …until then, or until the batch expires.
    patience: Instant,
    /// Jobs that have not ended.
    open: BTreeMap<usize, (Arc<Live>, AbortHandle)>,
    running: JoinSet<(usize, Job)>,
    /// A cancel is under way: its grace, and until when those that are down are waited for.
    cancelled: Option<(Option<f64>, Instant)>,
    /// Members whose agent did not get the cancel.
    unsent: HashMap<Key, usize>,
    /// Ends that the store has not taken.
    unwritten: Vec<(u32, bool, MemberEnd)>,
    /// Since when the device of a member that runs is down.
    down: HashMap<usize, Instant>,
    /// When to try again what failed.
    retry: Option<Instant>,
    /// The log has said that something failed.
    told: bool,
    /// Something that watchers were not told of.
    news: bool,
}

impl Driver {
    async fn run(mut self) {
        let mut stop = self.app.stop.clone();
        tokio::select! {
            () = self.find_jobs() => {}
            () = stopped(&mut stop) => return,
        }
        while !*stop.borrow() {
            self.retry = None;
            self.heed_cancel().await;
            self.stop_where_due().await;
            self.start_more().await;
            self.give_up();
            self.give_up_running();
            self.write().await;
            if self.is_over() && self.finish().await {
                return;
            }
            // Once for all that ended in this round.
            if std::mem::take(&mut self.news) {
                self.app.batches.publish(&self.batch);
            }
            let due = self.due();
            let listening = !self.away.is_empty() || !self.unsent.is_empty();
            // Each heartbeat of the fleet is heard here, and a round looks at all members.
            loop {
                tokio::select! {
                    Some(ended) = self.running.join_next() => {
                        self.take(ended);
                        break;
                    }
                    change = self.changes.recv(), if listening => {
                        if self.hear(change) {
                            break;
                        }
                    }
                    () = sleep_until(due) => break,
                    () = self.batch.wake.notified() => break,
                    () = stopped(&mut stop) => return,
                }
            }
            while let Some(ended) = self.running.try_join_next() {
                self.take(ended);
            }
        }
    }

    /// Which members have jobs already: all of those that were started before a restart.
    async fn find_jobs(&mut self) {
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
    fn watch(&mut self, at: usize, live: Arc<Live>) {
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

    /// A job has ended.
    fn take(&mut self, ended: Result<(usize, Job), tokio::task::JoinError>) {
        // An error is one that was given up.
        if let Ok((at, job)) = ended
            && self.open.remove(&at).is_some()
        {
            self.unsent.retain(|_, unsent| *unsent != at);
            self.end(at, true, end_of(&job));
        }
    }

    fn end(&mut self, at: usize, started: bool, end: MemberEnd) {
        self.batch.change(|standing| {
            standing.members[at].end = Some(end.clone());
            if !started {
                standing.order.push(at);
            }
        });
        self.news = true;
        let number = u32::try_from(at).unwrap_or(u32::MAX);
        self.unwritten.push((number, started, end));
    }

    fn failed(&mut self, reason: &dyn std::fmt::Display) {
        self.retry = Some(Instant::now() + RETRY);
        if !std::mem::replace(&mut self.told, true) {
            log::error!("batch {} waits: {reason}", self.batch.row.id);
        }
    }

    async fn write(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let (id, ended) = (self.batch.row.id.clone(), self.unwritten.clone());
        let call = move |store: &mut dyn Store| store.end_members(&id, &ended);
        match self.app.db.call(call).await {
            Ok(()) => self.unwritten.clear(),
            Err(e) => self.failed(&e),
        }
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
    async fn stop_where_due(&mut self) {
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

    async fn start_more(&mut self) {
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

    /// Ends members that are waited for no longer.
    fn give_up(&mut self) {
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
        self.cancelled = Some((grace, Instant::now() + CANCEL_WAIT));
        let down = |live: &Live| self.app.registry.connection(&live.key()).is_none();
        let gone: Vec<usize> = self
            .open
            .iter()
            .filter(|(_, (live, _))| down(live))
            .map(|(at, _)| *at)
            .collect();
        for at in gone {
            if let Some((live, handle)) = self.open.remove(&at) {
                handle.abort();
                self.unsent.remove(&live.key());
                let reason = "the device went away before it was told of the end of the batch; its job may run on there";
                let end = MemberEnd::new(MemberState::Offline, reason);
                self.end(at, true, end);
            }
        }
    }

    /// Ends members whose device went while their job ran, and stayed away for too long: else a canary that dies would hold
    /// up the batch for ever. Where the batch may wait for devices it waits for these as well.
    fn give_up_running(&mut self) {
        let patience = self.app.settings.batch_patience;
        let waits = self.batch.row.expires.is_some_and(|at| at > now());
        let mut gone = Vec::new();
        for (at, (live, _)) in &self.open {
            if self.app.registry.connection(&live.key()).is_some() {
                self.down.remove(at);
                continue;
            }
            let since = *self.down.entry(*at).or_insert_with(Instant::now);
            if !waits && since.elapsed() >= patience {
                gone.push(*at);
            }
        }
        self.down.retain(|at, _| self.open.contains_key(at));
        for at in gone {
            if let Some((live, handle)) = self.open.remove(&at) {
                handle.abort();
                self.unsent.remove(&live.key());
                let reason = format!(
                    "the device went away while its job ran, and did not come back for {} s; the job may run on there",
                    patience.as_secs()
                );
                self.end(at, true, MemberEnd::new(MemberState::Failed, reason));
            }
        }
    }

    /// Tells those that run, once for each cancel; those that are down when they come back.
    async fn heed_cancel(&mut self) {
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
    fn hear(&mut self, change: Result<Change, RecvError>) -> bool {
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

    /// When there is something to do at the latest.
    fn due(&self) -> Instant {
        let mut due = Instant::now() + LOOK;
        if !self.away.is_empty() {
            due = due.min(match self.batch.row.expires {
                Some(expires) => {
                    let left = Duration::try_from_secs_f64(expires - now()).unwrap_or_default();
                    Instant::now() + left.min(LOOK)
                }
                None => self.patience,
            });
        }
        if let Some((_, until)) = self.cancelled {
            due = due.min(until);
        }
        if !self.open.is_empty() {
            due = due.min(Instant::now() + self.app.settings.batch_patience);
        }
        self.retry.map_or(due, |retry| due.min(retry))
    }

    fn is_over(&self) -> bool {
        self.ready.is_empty()
            && self.away.is_empty()
            && self.open.is_empty()
            && self.unwritten.is_empty()
    }

    async fn finish(&mut self) -> bool {
        let counts = lock(&self.batch.standing).counts();
        let (id, at) = (self.batch.row.id.clone(), now());
        let call = move |store: &mut dyn Store| store.end_batch(&id, at, &counts);
        if let Err(e) = self.app.db.call(call).await {
            self.failed(&e);
            return false;
        }
        self.batch.change(|standing| standing.ended = Some(at));
        self.app.batches.close(&self.batch);
        self.app.batches.publish(&self.batch);
        log::info!("batch {} is over", self.batch.row.id);
        true
    }
}

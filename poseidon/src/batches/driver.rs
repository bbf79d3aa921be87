//! What keeps a batch going: starts jobs as far as it may, notes their ends, stops where it should.

mod away;
mod start;

use super::{Batch, end_of};
use crate::agents::Key;
use crate::events::Change;
use crate::jobs::{Live, lock};
use crate::server::{App, stopped};
use crate::store::batches::MemberEnd;
use crate::store::{Job, Store};
use crate::time::now;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Where the store failed or too many jobs are open it is tried again after so long.
const RETRY: Duration = Duration::from_secs(1);
/// After a restart of Poseidon all agents are away at first, and come back within their longest back-off.
const RETURN: Duration = Duration::from_mins(5);
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
            let patience = self.app.settings.batch_patience;
            due = due.min(Instant::now() + patience);
            if !self.waits_for_all() {
                due = self
                    .first_down_for(patience)
                    .map_or(due, |first| due.min(first));
            }
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

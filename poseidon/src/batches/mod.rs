//! Batches: one request to many devices, so many at a time.
//!
//! Who the members are is fixed when a batch is made, and the token of each one's job with it. The store takes no token
//! twice, so whether a member was started is whether there is its job, also after a crash: none is started twice. A task
//! for each batch ([`driver`]) starts jobs and notes their ends; [`output`] is what they tell, as one stream.

pub mod driver;
mod outcome;
pub mod output;
#[cfg(test)]
mod tests;

use outcome::{end_of, is_failure};

use crate::agents::Key;
use crate::agents::registry::Target;
use crate::events::{Change, Events};
use crate::jobs::{lock, without_input};
use crate::store::batches::{
    Batch as Row, Counts, Detail, Member, MemberEnd, MemberState, Stopped,
};
use crate::store::{Db, LOOKS, Only, Result, Store, StoreError};
use crate::time::now;
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};
use triton::message::id;

/// Members of one batch.
pub const MAX_MEMBERS: usize = 10_000;
/// Batches that are not over.
pub const MAX_OPEN: usize = 100;
/// Members of all of them, which are in memory.
pub const MAX_OPEN_MEMBERS: usize = 100_000;
/// Jobs of one batch at a time, where it does not say.
pub const CONCURRENCY: u32 = 50;
/// The most that it can say.
pub const MAX_CONCURRENCY: u32 = 1000;
/// Batches that are remembered…
const KEEP: u64 = 1000;
/// …as far as they have no more members than this in all.
const KEEP_MEMBERS: u64 = 200_000;

/// A batch, live or as it ended.
pub struct Batch {
    row: Row,
    standing: Mutex<Standing>,
    /// Counts changes, for those who watch.
    changed: watch::Sender<u64>,
    /// Rung for the driver when a cancel came.
    wake: Notify,
}

/// What somebody wants to be ended.
#[derive(Clone, Copy)]
struct Cancel {
    /// Between SIGTERM and SIGKILL; without it the device's own.
    grace_seconds: Option<f64>,
}

struct Standing {
    members: Vec<Member>,
    stopped: Option<Stopped>,
    ended: Option<f64>,
    /// Members in the order in which they were started, or ended without that.
    order: Vec<usize>,
    /// One that the driver has not seen.
    cancel: Option<Cancel>,
}

/// A batch as the API gives it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchView<'a> {
    id: &'a str,
    created: f64,
    ended: Option<f64>,
    state: &'static str,
    r#type: &'a str,
    request: Cow<'a, RawValue>,
    on: &'a [String],
    agents: &'a [String],
    concurrency: u32,
    canary: u32,
    stop_on_failures: u32,
    queue: bool,
    expires: Option<f64>,
    stopped: Option<Stopped>,
    total: u32,
    counts: CountsView,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<MemberView>>,
}

/// How many members stand where.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CountsView {
    waiting: u32,
    running: u32,
    succeeded: u32,
    failed: u32,
    timed_out: u32,
    offline: u32,
    cancelled: u32,
    not_started: u32,
}

impl From<Counts> for CountsView {
    fn from(counts: Counts) -> Self {
        Self {
            waiting: counts.of(MemberState::Waiting),
            running: counts.of(MemberState::Running),
            succeeded: counts.of(MemberState::Succeeded),
            failed: counts.of(MemberState::Failed),
            timed_out: counts.of(MemberState::TimedOut),
            offline: counts.of(MemberState::Offline),
            cancelled: counts.of(MemberState::Cancelled),
            not_started: counts.of(MemberState::NotStarted),
        }
    }
}

/// A member as the API gives it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberView {
    agent: String,
    instance: String,
    job: Option<String>,
    state: MemberState,
    #[serde(flatten)]
    detail: Detail,
}

impl From<&Member> for MemberView {
    fn from(member: &Member) -> Self {
        Self {
            agent: member.agent.clone(),
            instance: member.instance.clone(),
            job: member.started.then(|| member.token.clone()),
            state: state(member),
            detail: member
                .end
                .as_ref()
                .map_or_else(Detail::default, |end| end.detail.clone()),
        }
    }
}

fn state(member: &Member) -> MemberState {
    match &member.end {
        Some(end) => end.state,
        None if member.started => MemberState::Running,
        None => MemberState::Waiting,
    }
}

fn view(
    row: &Row,
    stopped: Option<Stopped>,
    ended: Option<f64>,
    counts: Counts,
    members: Option<Vec<MemberView>>,
) -> BatchView<'_> {
    BatchView {
        id: &row.id,
        created: row.created,
        ended,
        state: if ended.is_some() { "ended" } else { "running" },
        r#type: &row.kind,
        request: Cow::Borrowed(&row.request),
        on: &row.on,
        agents: &row.agents,
        concurrency: row.concurrency,
        canary: row.canary,
        stop_on_failures: row.stop_on_failures,
        queue: row.queue,
        expires: row.expires,
        stopped,
        total: row.total,
        counts: counts.into(),
        members,
    }
}

impl<'a> From<&'a Row> for BatchView<'a> {
    fn from(row: &'a Row) -> Self {
        view(
            row,
            row.stopped,
            row.ended,
            row.counts.unwrap_or_default(),
            None,
        )
    }
}

impl BatchView<'_> {
    /// As it is told to who sees no content, if so.
    pub fn told(self, is_viewer: bool) -> Self {
        if !is_viewer {
            return self;
        }
        let request = Cow::Owned(without_input(&self.request).into_owned());
        Self { request, ..self }
    }
}

impl Batch {
    fn new(row: Row, members: Vec<Member>) -> Self {
        let order = (0..members.len())
            .filter(|at| members[*at].end.is_some())
            .collect();
        Self {
            standing: Mutex::new(Standing {
                stopped: row.stopped,
                ended: row.ended,
                order,
                cancel: None,
                members,
            }),
            changed: watch::Sender::new(0),
            wake: Notify::new(),
            row,
        }
    }

    /// As the API gives it.
    pub fn view(&self, members: bool) -> BatchView<'_> {
        let standing = lock(&self.standing);
        let members = members.then(|| standing.members.iter().map(MemberView::from).collect());
        let (stopped, ended, counts) = (standing.stopped, standing.ended, standing.counts());
        drop(standing);
        view(&self.row, stopped, ended, counts, members)
    }

    /// Whether another one would ask the same, see [`Row::asks_like`].
    pub fn asks_like(&self, row: &Row) -> bool {
        self.row.asks_like(row)
    }

    /// Its id and how many it is for, for the audit log.
    pub fn told(&self) -> String {
        format!("batch {} for {} devices", self.row.id, self.row.total)
    }

    /// The devices that are its members.
    pub fn keys(&self) -> Vec<Key> {
        lock(&self.standing)
            .members
            .iter()
            .map(Member::key)
            .collect()
    }

    /// Whether all of it is over.
    pub fn is_over(&self) -> bool {
        lock(&self.standing).ended.is_some()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Standing) -> T) -> T {
        let changed = change(&mut lock(&self.standing));
        self.changed.send_modify(|n| *n += 1);
        changed
    }
}

impl Standing {
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for member in &self.members {
            counts.add(state(member));
        }
        counts
    }
}

/// What is asked of whom.
pub struct Plan {
    /// As it will be stored; its members are counted here.
    pub row: Row,
    /// Who.
    pub targets: Vec<Target>,
}

/// All batches.
pub struct Batches {
    /// By id from the moment on at which anybody can find it in the store; by another key while it is being stored.
    open: Arc<Mutex<HashMap<String, Arc<Batch>>>>,
    /// Each driver holds one.
    drivers: Arc<()>,
    db: Db,
    events: Events,
}

impl Batches {
    /// None is open yet.
    pub fn new(db: Db, events: Events) -> Self {
        Self {
            open: Arc::default(),
            drivers: Arc::default(),
            db,
            events,
        }
    }

    /// Stores a new batch, whose id must be new to the store too; `None` where too many are open. Members that are down have ended, unless it is to wait for them.
    pub async fn create(&self, plan: Plan) -> Result<Option<Arc<Batch>>> {
        let Plan {
            mut row,
            mut targets,
        } = plan;
        // Those that are up come first: the canary is one of them.
        targets.sort_by_key(|target| target.connection.is_none());
        let members: Vec<Member> = targets
            .into_iter()
            .map(|target| Member {
                identifier: target.key.identifier,
                instance: target.key.instance,
                agent: target.name,
                token: id::random(),
                started: false,
                end: (target.connection.is_none() && !row.queue).then(outcome::offline),
            })
            .collect();
        row.total = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let batch = Arc::new(Batch::new(row, members));
        let place = id::random();
        {
            // It has its place before it is stored, so that two at once do not take the last one.
            let mut open = lock(&self.open);
            let members: usize = open.values().map(|batch| batch.row.total as usize).sum();
            if open.len() >= MAX_OPEN || members + batch.row.total as usize > MAX_OPEN_MEMBERS {
                return Ok(None);
            }
            open.insert(place.clone(), batch.clone());
        }
        let (row, members) = (batch.row.clone(), lock(&batch.standing).members.clone());
        let call = move |store: &mut dyn Store| store.insert_batch(&row, &members);
        let (open, new) = (self.open.clone(), batch.clone());
        let then = move |stored: &Result<()>| {
            let mut open = lock(&open);
            open.remove(&place);
            if stored.is_ok() {
                open.insert(new.row.id.clone(), new.clone());
            }
        };
        self.db.call_then(call, then).await?;
        self.publish(&batch);
        Ok(Some(batch))
    }

    /// Those that were open when the server stopped.
    pub fn adopt(&self, open: Vec<(Row, Vec<Member>)>) -> Vec<Arc<Batch>> {
        let mut all = Vec::with_capacity(open.len());
        for (row, members) in open {
            let batch = Arc::new(Batch::new(row, members));
            lock(&self.open).insert(batch.row.id.clone(), batch.clone());
            all.push(batch);
        }
        all
    }

    /// One that is not over.
    pub fn open(&self, id: &str) -> Option<Arc<Batch>> {
        lock(&self.open).get(id).cloned()
    }

    /// Calls `take` for the request of each that is not over.
    pub fn each_request(&self, take: &mut dyn FnMut(&str)) {
        let open: Vec<Arc<Batch>> = lock(&self.open).values().cloned().collect();
        for batch in open {
            take(batch.row.request.get());
        }
    }

    /// Any. One that is not over is the one that is driven, and no copy: a cancel would get lost in that, and its
    /// watchers would wait for ever.
    pub async fn get(&self, id: &str) -> Result<Option<Arc<Batch>>> {
        for _ in 0..LOOKS {
            if let Some(batch) = self.open(id) {
                return Ok(Some(batch));
            }
            let stored = id.to_owned();
            let found = self.db.call(move |store| store.batch(&stored)).await?;
            if found.as_ref().is_none_or(|(row, _)| row.ended.is_some()) {
                return Ok(found.map(|(row, members)| Arc::new(Batch::new(row, members))));
            }
        }
        Err(StoreError::astray(&format!("batch {id}")))
    }

    /// The newest, as they are stored; those that are open know better where they stand.
    pub async fn list(&self, limit: u32, only: Only) -> Result<Vec<Row>> {
        self.db.call(move |store| store.batches(limit, &only)).await
    }

    /// Starts no more of it, and has the driver cancel what runs; false where it is over.
    pub async fn cancel(&self, batch: &Arc<Batch>, grace_seconds: Option<f64>) -> Result<bool> {
        let id = batch.row.id.clone();
        self.db
            .call(move |store| store.stop_batch(&id, Stopped::Cancelled))
            .await?;
        let asked = batch.change(|standing| {
            if standing.ended.is_some() {
                return false;
            }
            standing.stopped = Some(Stopped::Cancelled);
            standing.cancel = Some(Cancel { grace_seconds });
            true
        });
        batch.wake.notify_one();
        self.publish(batch);
        Ok(asked)
    }

    /// Deletes old ones.
    pub async fn prune(&self) -> Result<()> {
        self.db
            .call(|store| store.prune_batches(KEEP, KEEP_MEMBERS))
            .await?;
        Ok(())
    }

    /// How many tasks drive one.
    pub fn driven(&self) -> usize {
        Arc::strong_count(&self.drivers) - 1
    }

    fn close(&self, batch: &Batch) {
        lock(&self.open).remove(&batch.row.id);
    }

    fn publish(&self, batch: &Batch) {
        self.events.publish(|| Change::Batch(batch.row.id.clone()));
    }
}

impl Member {
    fn key(&self) -> Key {
        Key {
            identifier: self.identifier.clone(),
            instance: self.instance.clone(),
        }
    }
}

impl MemberEnd {
    fn new(state: MemberState, message: impl Into<String>) -> Self {
        Self {
            state,
            detail: Detail {
                message: Some(message.into()),
                ..Detail::default()
            },
        }
    }
}

/// A new id and the time, for a batch that is being made.
pub fn new_id() -> (String, f64) {
    (id::random(), now())
}

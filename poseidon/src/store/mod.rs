//! What Poseidon remembers: identifiers, instances, jobs, the records of the agents' journals, scripts, named data, schedules.
//!
//! [`Store`] is what a store can do; [`sqlite`] is the embedded one. [`Db`] is how the rest of the server
//! reaches it: a thread of its own takes the calls from a bounded queue and commits them in groups, so that
//! a sync of the disk is paid once for all that wait and never blocks the async runtime.

pub mod batches;
pub mod doors;
pub mod events;
pub mod metrics;
pub mod named;
pub mod records;
pub mod repositories;
pub mod schedules;
pub mod sqlite;
#[cfg(test)]
pub(crate) mod tests;
pub mod trust;

use records::{Batch, Found, RecordFilter, Stored};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Calls that may wait for the store; who comes later waits before the queue.
const QUEUE: usize = 1024;
/// Most calls in one transaction…
const GROUP: usize = 256;
/// …but one, for so long after a failure: a transaction fails as a whole.
const ALONE: Duration = Duration::from_secs(10);
/// Looks at what is in memory and then in the store. What is stored as running is in memory as well, see
/// [`Db::call_then`]; where it has ended between the two, the second look finds its end.
pub const LOOKS: usize = 2;
/// The log says so often that the store fails.
const SAY: Duration = Duration::from_mins(1);

/// Why the store did not do it.
#[derive(Debug, Clone)]
pub enum StoreError {
    /// The name belongs to another identifier.
    NameTaken,
    /// There is a job, or a batch, with this token.
    TokenTaken,
    /// The disk has no room.
    Full(String),
    /// Anything else: the disk, the file, the database.
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken => f.write_str("the name belongs to another identifier"),
            Self::TokenTaken => f.write_str("the token belongs to another request"),
            Self::Full(reason) => write!(
                f,
                "the disk of the data folder is full ({reason}): free space there, and try again"
            ),
            Self::Failed(reason) => write!(f, "the store failed: {reason}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl StoreError {
    /// It runs as the store has it, and is not in memory, after all [`LOOKS`].
    pub fn astray(what: &str) -> Self {
        Self::Failed(format!(
            "{what} has not ended there, and nobody goes on with it: restart Poseidon, which does"
        ))
    }
}

/// Result of a call to the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A registered or refused identifier.
#[derive(Debug, Clone, PartialEq)]
pub struct Identifier {
    /// SHA-256 of the identifier, 64 hex digits.
    pub hash: String,
    /// What people call it.
    pub name: String,
    /// It stays out.
    pub refused: bool,
    /// When it was registered or refused.
    pub created: f64,
    /// Given to its agents.
    pub attributes: BTreeMap<String, String>,
    /// Seconds between their heartbeats, where an operator has set them.
    pub heartbeat: Option<u32>,
}

/// One installation of Triton, as it was last seen.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Hash of its identifier.
    pub identifier: String,
    /// Its instance id.
    pub instance: String,
    /// It never sent `hello`.
    pub plain: bool,
    /// IP and port.
    pub address: String,
    /// When it came or went.
    pub since: f64,
    /// When it was last heard.
    pub last_seen: f64,
    /// `hello` as received, JSON.
    pub hello: Option<Box<RawValue>>,
    /// The last whole heartbeat, JSON.
    pub health: Option<Box<RawValue>>,
    /// When that came.
    pub health_at: Option<f64>,
    /// The last sequence of its journal that is stored; written with the records only.
    pub acked: u64,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits in the store for its agent.
    Queued = -1,
    /// Stored and handed to the connection.
    Sent,
    /// The agent has it.
    Accepted,
    /// It has a result or an error.
    Ended,
}

/// A job: one request to one instance.
#[derive(Debug, Clone)]
pub struct Job {
    /// Message id of the request and conversation id of all that follows.
    pub token: String,
    /// Hash of the identifier.
    pub identifier: String,
    /// Instance id.
    pub instance: String,
    /// Name of the agent when the job was made.
    pub agent: String,
    /// Where it stands.
    pub state: JobState,
    /// When it was made.
    pub created: f64,
    /// Type of the request.
    pub kind: String,
    /// The payload of the request, which thousands may share.
    pub request: Arc<RawValue>,
    /// The payload of `result`.
    pub result: Option<Box<RawValue>>,
    /// The payload of `error`.
    pub error: Option<Box<RawValue>>,
    /// Bytes of stdout that the job is known to have written.
    pub stdout_bytes: u64,
    /// The same of stderr.
    pub stderr_bytes: u64,
    /// It may wait for its agent…
    pub queue: bool,
    /// …until then.
    pub expires: Option<f64>,
    /// Id of the journal of the agent that it was sent to.
    pub journal: Option<String>,
}

impl Job {
    /// Which instance it is for.
    pub fn key(&self) -> crate::agents::Key {
        crate::agents::Key {
            identifier: self.identifier.clone(),
            instance: self.instance.clone(),
        }
    }
}

/// What a server needs to know when it starts.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Snapshot {
    pub identifiers: Vec<Identifier>,
    pub instances: Vec<Instance>,
    pub open_jobs: Vec<Job>,
    pub device_keys: Vec<trust::DeviceKey>,
}

/// The instances that somebody may see, as JSON: `[[identifier, instance],…]`. Without it, all. In a query:
/// `(identifier, instance) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))`.
pub type Only = Option<Arc<str>>;

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only of this identifier…
    pub identifier: Option<String>,
    /// …and this instance.
    pub instance: Option<String>,
    /// Only in this state.
    pub state: Option<JobState>,
    /// Only of these instances; without it, of all.
    pub only: Only,
    /// At most so many.
    pub limit: u32,
}

/// A store. Calls between `begin` and `commit` are durable when `commit` has returned.
pub trait Store:
    repositories::RepositoryStore
    + named::NamedStore
    + batches::BatchStore
    + schedules::ScheduleStore
    + events::EventStore
    + metrics::MetricStore
    + doors::DoorStore
    + trust::TrustStore
    + Send
{
    /// Opens a transaction.
    fn begin(&mut self) -> Result<()>;
    /// Makes durable what was done since `begin`.
    fn commit(&mut self) -> Result<()>;
    /// Undoes what was done since `begin`.
    fn rollback(&mut self);
    /// Whether what was done since `begin` can still be committed: a full disk may have undone it.
    fn is_begun(&self) -> bool;
    /// Marks a point within the transaction.
    fn mark(&mut self) -> Result<()>;
    /// Keeps (`true`) or undoes what was done since the mark.
    fn unmark(&mut self, keep: bool) -> Result<()>;

    /// All that a server starts with.
    fn load(&mut self) -> Result<Snapshot>;
    /// Adds or changes an identifier.
    fn put_identifier(&mut self, identifier: &Identifier) -> Result<()>;
    /// Forgets an identifier and its instances.
    fn delete_identifier(&mut self, hash: &str) -> Result<()>;
    /// Adds or changes instances; those of identifiers that are gone are skipped.
    fn put_instances(&mut self, instances: &[Instance]) -> Result<()>;
    /// Forgets an instance and its records.
    fn delete_instance(&mut self, identifier: &str, instance: &str) -> Result<()>;
    /// Adds jobs.
    fn insert_jobs(&mut self, jobs: &[Job]) -> Result<()>;
    /// Jobs are about to be sent to the agent with this journal, unless they are further already.
    fn send_jobs(&mut self, tokens: &[String], journal: Option<&str>) -> Result<()>;
    /// A job that was sent and not taken waits again.
    fn queue_job(&mut self, token: &str) -> Result<()>;
    /// The agent has a job, unless that has ended.
    fn accept_job(&mut self, token: &str) -> Result<()>;
    /// Writes a job's result, error and byte counts; only the first end counts.
    fn end_job(&mut self, job: &Job) -> Result<()>;
    /// One job.
    fn job(&mut self, token: &str) -> Result<Option<Job>>;
    /// Jobs, newest first.
    fn jobs(&mut self, filter: &JobFilter) -> Result<Vec<Job>>;
    /// Tokens of the ended jobs of an identifier, or of one of its instances.
    fn ended_tokens(&mut self, identifier: &str, instance: Option<&str>) -> Result<Vec<String>>;
    /// Deletes ended jobs beyond the newest `keep`; returns their tokens.
    fn prune_jobs(&mut self, keep: u64) -> Result<Vec<String>>;
    /// Adds records that are new, and writes what they say of jobs; `None` where the identifier is gone.
    fn store_records(&mut self, batch: &Batch) -> Result<Option<Stored>>;
    /// Records, and whether others fit too.
    fn records(&mut self, filter: &RecordFilter) -> Result<(Vec<Found>, bool)>;
    /// Deletes the oldest records beyond the newest `keep`, at most so many at a time; returns how many.
    fn prune_records(&mut self, keep: u64, at_most: u32) -> Result<usize>;
}

type Finish = Box<dyn FnOnce(Result<()>) + Send>;
/// What tells the caller when it is known whether all is durable, and what went wrong already.
type Work = Box<dyn FnOnce(&mut dyn Store) -> (Finish, Option<StoreError>) + Send>;

/// The way to the store; cheap to clone.
#[derive(Clone)]
pub struct Db {
    queue: mpsc::Sender<Work>,
}

impl Db {
    /// Starts the store's thread.
    pub fn start(store: Box<dyn Store>) -> std::io::Result<Self> {
        let (queue, calls) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || serve(store, calls))?;
        Ok(Self { queue })
    }

    /// Runs `call` in the store's thread; returns when what it did is durable.
    pub async fn call<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Store) -> Result<T> + Send + 'static,
    {
        self.call_then(call, |_| {}).await
    }

    /// The same, and calls `then` with the outcome in the store's thread, before anybody is answered whose call came
    /// later: who finds in the store what `call` did there finds in memory what `then` did. It must not wait.
    pub async fn call_then<T, F, G>(&self, call: F, then: G) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Store) -> Result<T> + Send + 'static,
        G: FnOnce(&Result<T>) + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |store| {
            let result = store.mark().and_then(|()| {
                let result = call(store);
                let unmarked = store.unmark(result.is_ok());
                // Where the whole transaction was undone the mark has gone with it, which says nothing of why.
                result.and_then(|done| unmarked.map(|()| done))
            });
            let failure = result.as_ref().err().cloned();
            let finish: Finish = Box::new(move |committed| {
                let outcome = committed.and(result);
                then(&outcome);
                // Nobody may wait any more: then nobody needs the answer.
                let _ = reply.send(outcome);
            });
            (finish, failure)
        });
        let gone = || StoreError::Failed("its thread has ended".to_owned());
        self.queue.send(work).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Has `call` run some time soon, without waiting for it. False where the queue is full: for what may be
    /// lost or is tried again.
    pub fn post<F>(&self, call: F) -> bool
    where
        F: FnOnce(&mut dyn Store) -> Result<()> + Send + 'static,
    {
        let work: Work = Box::new(move |store| {
            let failure = call(store).err();
            if let Some(e) = &failure {
                log::error!("{e}");
            }
            (Box::new(|_| {}), failure)
        });
        self.queue.try_send(work).is_ok()
    }
}

fn serve(mut store: Box<dyn Store>, mut calls: mpsc::Receiver<Work>) {
    let mut trouble = Trouble::default();
    while let Some(first) = calls.blocking_recv() {
        let group = if trouble.is_recent() { 1 } else { GROUP };
        let mut broken = store.begin().err();
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(work) = next {
            let (finish, failure) = work(store.as_mut());
            waiting.push(finish);
            if !store.is_begun() {
                broken = broken.or(failure);
            }
            next = if waiting.len() < group && broken.is_none() {
                calls.try_recv().ok()
            } else {
                None
            };
        }
        let committed = match broken {
            None => store.commit(),
            Some(e) => Err(e),
        };
        if let Err(e) = &committed {
            trouble.note(e);
            store.rollback();
        }
        for finish in waiting {
            finish(committed.clone());
        }
    }
}

/// A store that fails, such as on a full disk.
#[derive(Default)]
struct Trouble {
    /// When it failed last.
    last: Option<Instant>,
    /// When the log has said so, and how often it failed since.
    said: Option<Instant>,
    since: u64,
}

impl Trouble {
    /// Whether it failed just now. Then each call stands by itself: who only reads is answered all the same.
    fn is_recent(&self) -> bool {
        self.last.is_some_and(|at| at.elapsed() < ALONE)
    }

    fn note(&mut self, e: &StoreError) {
        self.last = Some(Instant::now());
        if self.said.is_some_and(|at| at.elapsed() < SAY) {
            self.since += 1;
            return;
        }
        let more = match std::mem::take(&mut self.since) {
            0 => String::new(),
            n => format!("; so it was {n} times more since the log said it last"),
        };
        log::error!("{e}{more}");
        self.said = self.last;
    }
}

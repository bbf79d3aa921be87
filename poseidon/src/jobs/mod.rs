//! Jobs: what was asked of agents and what became of it.
//!
//! A job is stored before it is sent, and its end is stored before anybody is told. Jobs that have not ended are
//! in memory as well, with the writing end of their output.

pub mod inbox;
pub mod live;
mod open;
pub mod output;
mod queue;
pub mod spool;
#[cfg(test)]
mod tests;

pub use live::{Live, Resume, Written};
pub use queue::expired;

use crate::events::{Change, Events};
use crate::store::{Db, Job, JobFilter, JobState, LOOKS, Result, Store, StoreError};
use open::Open;
use serde::Serialize;
use serde_json::value::RawValue;
use spool::{Spool, Spools};
use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use triton::message::payload::{self, Stream};

/// More jobs may not be open at a time.
pub const MAX_OPEN: usize = 50_000;
/// With so many open none is taken that may wait: those that are sent at once have the rest.
pub const MAX_WITH_QUEUED: usize = MAX_OPEN / 2;
/// Cancels whose answer is remembered.
const MAX_CANCELS: usize = 1000;
/// Longest text of a progress report, in characters.
const PROGRESS_TEXT: usize = 1000;

/// A mutex whose holder panicked still guards data that is whole: nothing here panics half-way through a change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A job as the API gives it.
#[derive(Serialize)]
pub struct JobView<'a> {
    id: &'a str,
    agent: &'a str,
    instance: &'a str,
    state: JobState,
    created: f64,
    expires: Option<f64>,
    r#type: &'a str,
    request: Cow<'a, RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
}

impl<'a> From<&'a Job> for JobView<'a> {
    fn from(job: &'a Job) -> Self {
        Self {
            id: &job.token,
            agent: &job.agent,
            instance: &job.instance,
            state: job.state,
            created: job.created,
            expires: job.expires,
            r#type: &job.kind,
            request: Cow::Borrowed(&job.request),
            result: job.result.as_deref(),
            error: job.error.as_deref(),
        }
    }
}

/// Fields of a request that are input of a process: a key, say.
const INPUT: [&str; 2] = ["stdin", "env"];

/// A request without the input of its process, for who sees no content.
pub fn without_input(request: &RawValue) -> Cow<'_, RawValue> {
    let Ok(mut fields) = serde_json::from_str::<serde_json::Map<_, _>>(request.get()) else {
        return Cow::Borrowed(request);
    };
    if !INPUT.iter().any(|field| fields.contains_key(*field)) {
        return Cow::Borrowed(request);
    }
    fields.retain(|name, _| !INPUT.contains(&name.as_str()));
    let left = serde_json::value::to_raw_value(&fields);
    Cow::Owned(left.unwrap_or_else(|_| RawValue::NULL.to_owned()))
}

/// Whether two requests ask for the same; in which order their fields stand does not matter.
pub fn is_same(a: &RawValue, b: &RawValue) -> bool {
    let read = |raw: &RawValue| serde_json::from_str::<serde_json::Value>(raw.get()).ok();
    a.get() == b.get() || read(a).is_some_and(|a| Some(a) == read(b))
}

impl JobView<'_> {
    /// As it is told to who sees no content, if so.
    pub fn told(self, is_viewer: bool) -> Self {
        if !is_viewer {
            return self;
        }
        let request = Cow::Owned(without_input(&self.request).into_owned());
        Self { request, ..self }
    }
}

/// How a job ends.
pub enum End {
    /// JSON of `result`.
    Result(Box<RawValue>),
    /// `error`.
    Error(payload::Error),
}

/// How the open jobs of a forgotten agent end.
pub fn forgotten() -> payload::Error {
    payload::Error::new(
        payload::ErrorCode::Other("forgotten".to_owned()),
        "the agent was forgotten before it reported the end",
    )
}

/// All jobs.
pub struct Jobs {
    open: Mutex<Open>,
    /// Conversation of a `cancel` → token of its job, oldest first.
    cancels: Mutex<VecDeque<(String, String)>>,
    spools: Arc<Spools>,
    /// Ended jobs whose ends the store has not taken; they are among the open ones too.
    unstored: Mutex<Vec<Arc<Live>>>,
    /// A job more waits in the store.
    queued: Notify,
    db: Db,
    events: Events,
}

impl Jobs {
    /// Goes on with the jobs that were open when the server stopped.
    pub fn new(db: Db, events: Events, spools: Spools, open: Vec<Job>) -> Arc<Self> {
        let mut all = Open::default();
        for job in open {
            all.add(job.token.clone(), &Arc::new(Live::new(job, 0)));
        }
        Arc::new(Self {
            open: Mutex::new(all),
            cancels: Mutex::default(),
            spools: Arc::new(spools),
            unstored: Mutex::default(),
            queued: Notify::new(),
            db,
            events,
        })
    }

    /// Stores new jobs, each with the number of the connection on which it is about to be sent, or 0. None is made
    /// where there would be too many. They are open as soon as anybody can find them in the store.
    pub async fn create(self: &Arc<Self>, jobs: Vec<(Job, u64)>) -> Result<Option<Vec<Arc<Live>>>> {
        let rows: Vec<Job> = jobs.iter().map(|(job, _)| job.clone()).collect();
        let limit = if rows.iter().any(|job| job.queue) {
            MAX_WITH_QUEUED
        } else {
            MAX_OPEN
        };
        if lock(&self.open).len() + rows.len() > limit {
            return Ok(None);
        }
        let tokens: Vec<String> = rows.iter().map(|job| job.token.clone()).collect();
        let made: Vec<Arc<Live>> = jobs
            .into_iter()
            .map(|(job, connection)| Arc::new(Live::new(job, connection)))
            .collect();
        let (all, new) = (self.clone(), made.clone());
        let open = move |stored: &Result<()>| {
            if stored.is_ok() {
                let mut open = lock(&all.open);
                for (token, live) in tokens.into_iter().zip(&new) {
                    open.add(token, live);
                }
            }
        };
        let call = move |store: &mut dyn Store| store.insert_jobs(&rows);
        self.db.call_then(call, open).await?;
        for live in &made {
            self.publish(&lock(&live.job).job);
        }
        self.queued.notify_one();
        Ok(Some(made))
    }

    /// The open job that `token` names.
    pub fn open(&self, token: &str) -> Option<Arc<Live>> {
        lock(&self.open).get(token)
    }

    /// The open job that an agent speaks of; nobody speaks for another's.
    pub fn open_of(
        &self,
        token: &str,
        identifier: &str,
        instance: &str,
        plain: bool,
    ) -> Option<Arc<Live>> {
        self.open(token)
            .filter(|live| live.belongs_to(identifier, instance, plain))
    }

    /// All open jobs of an instance, or of all instances of an identifier; those of one in the order in which they
    /// were made.
    pub fn all_open_of(&self, identifier: &str, instance: Option<&str>) -> Vec<Arc<Live>> {
        lock(&self.open).of(identifier, instance)
    }

    /// Calls `take` for the request of each open job.
    pub fn each_request(&self, take: &mut dyn FnMut(&str)) {
        let all = lock(&self.open).all();
        for live in all {
            take(live.job().request.get());
        }
    }

    /// A job, open or ended.
    pub async fn get(&self, token: &str) -> Result<Option<Job>> {
        for _ in 0..LOOKS {
            if let Some(live) = self.open(token) {
                return Ok(Some(live.job()));
            }
            let stored = token.to_owned();
            let found = self.db.call(move |store| store.job(&stored)).await?;
            let ended = |job: &Job| job.state == JobState::Ended;
            if found.as_ref().is_none_or(ended) {
                return Ok(found);
            }
        }
        Err(StoreError::astray(&format!("job {token}")))
    }

    /// Jobs, newest first.
    pub async fn list(&self, filter: JobFilter) -> Result<Vec<Job>> {
        self.db.call(move |store| store.jobs(&filter)).await
    }

    /// Deletes ended jobs beyond the newest `keep`, with their output.
    pub async fn prune(&self, keep: u64) -> Result<()> {
        let pruned = self.db.call(move |store| store.prune_jobs(keep)).await?;
        self.delete_output(pruned).await;
        Ok(())
    }

    /// Deletes the output of the ended jobs of an identifier, or of one of its instances; the jobs stay.
    pub async fn forget_output(&self, identifier: &str, instance: Option<&str>) -> Result<()> {
        let (identifier, instance) = (identifier.to_owned(), instance.map(str::to_owned));
        let tokens = self
            .db
            .call(move |store| store.ended_tokens(&identifier, instance.as_deref()))
            .await?;
        self.delete_output(tokens).await;
        Ok(())
    }

    async fn delete_output(&self, tokens: Vec<String>) {
        let spools = self.spools.clone();
        let deleted = tokio::task::spawn_blocking(move || spools.delete(&tokens));
        if let Err(e) = deleted.await {
            log::error!("deleting output failed: {e}");
        }
    }

    /// Where the output of a job is.
    pub fn path(&self, token: &str) -> PathBuf {
        self.spools.path(token)
    }

    /// The agent has the job.
    pub fn accepted(&self, live: &Live) {
        if let Some(token) = self.set_accepted(live) {
            // Nothing rests on this being durable: if it is not, the job counts as sent, and is sent again after a
            // reconnect.
            self.db.post(move |store| store.accept_job(&token));
        }
    }

    /// Notes in memory that the agent has the job; its token if that is news.
    pub(crate) fn set_accepted(&self, live: &Live) -> Option<String> {
        let job = {
            let mut standing = lock(&live.job);
            if !matches!(standing.job.state, JobState::Sent | JobState::Queued) {
                return None;
            }
            standing.job.state = JobState::Accepted;
            standing.job.clone()
        };
        self.publish(&job);
        Some(job.token)
    }

    /// Stores a piece of output; returns when it is written, so that the agent is read no faster than that.
    pub async fn output(
        self: &Arc<Self>,
        live: &Arc<Live>,
        stream: Stream,
        offset: u64,
        bytes: Vec<u8>,
    ) {
        self.write(live, move |spool, spools, token, open| {
            spool.output(spools, token, stream, offset, &bytes, open);
        })
        .await;
    }

    /// Stores the end of the output as far as it is missing: what went on its way while there was no connection is
    /// lost, and the result has the last of it.
    pub async fn fill(self: &Arc<Self>, live: &Arc<Live>, result: &payload::JobResult) {
        let asked: Asked = serde_json::from_str(live.job().request.get()).unwrap_or_default();
        // Otherwise none was to come.
        if asked.output != payload::OutputMode::Stream {
            return;
        }
        let seen = lock(&live.spool).seen();
        for (stream, total, tail) in [
            (Stream::Stdout, result.stdout_bytes, &result.tail.stdout),
            (Stream::Stderr, result.stderr_bytes, &result.tail.stderr),
        ] {
            if seen[stream as usize] >= total {
                continue;
            }
            let bytes = tail.clone().into_bytes().unwrap_or_default();
            // The tail ends where the stream does.
            if let Some(offset) = total.checked_sub(bytes.len() as u64)
                && !bytes.is_empty()
            {
                self.output(live, stream, offset, bytes).await;
            }
        }
    }

    /// Stores a progress report.
    pub async fn progress(self: &Arc<Self>, live: &Arc<Live>, progress: payload::Progress) {
        let progress = payload::Progress {
            message: progress.message.chars().take(PROGRESS_TEXT).collect(),
            ..progress
        };
        let Ok(json) = serde_json::to_string(&progress) else {
            return;
        };
        self.write(live, move |spool, spools, token, open| {
            spool.progress(spools, token, &json, open);
        })
        .await;
    }

    async fn write<F>(self: &Arc<Self>, live: &Arc<Live>, write: F)
    where
        F: FnOnce(&mut Spool, &Spools, &str, &dyn Fn() -> HashSet<String>) + Send + 'static,
    {
        let (jobs, live) = (self.clone(), live.clone());
        let written = tokio::task::spawn_blocking(move || {
            let token = live.job().token;
            let mut spool = lock(&live.spool);
            let open = || lock(&jobs.open).tokens();
            write(&mut spool, &jobs.spools, &token, &open);
            let len = spool.written();
            drop(spool);
            live.written.send_modify(|written| written.len = len);
        });
        if let Err(e) = written.await {
            log::error!("writing output failed: {e}");
        }
    }

    /// Stores the end of a job and tells all who wait for it. Only the first end counts.
    ///
    /// Runs to its end even when the caller is dropped: a connection may break at any time.
    pub async fn end(self: &Arc<Self>, live: &Arc<Live>, end: End) {
        if live.begin_end() {
            self.finish_whole(live, end).await;
        }
    }

    async fn finish_whole(self: &Arc<Self>, live: &Arc<Live>, end: End) {
        let (jobs, live) = (self.clone(), live.clone());
        let ended = tokio::spawn(async move { jobs.finish(&live, end).await });
        if let Err(e) = ended.await {
            log::error!("ending a job failed: {e}");
        }
    }

    async fn finish(&self, live: &Arc<Live>, end: End) {
        let job = Self::ended_job(live, end);
        if let Err(e) = self.store(&job).await {
            log::error!("the end of job {} is not stored yet: {e}", job.token);
            // A full disk, most likely. It stays among the open ones, which are in memory, until it is stored.
            self.tell_end(live, &job, false);
            lock(&self.unstored).push(live.clone());
        } else {
            self.tell_end(live, &job, true);
        }
    }

    /// Takes the right to end a job with something else that is stored; the job as it will be. Then either
    /// [`Self::ended_with`] or [`Self::not_ended`] follows.
    pub(crate) fn begin_end(live: &Live, end: End) -> Option<Job> {
        live.begin_end().then(|| Self::ended_job(live, end))
    }

    /// The end of a job is stored.
    pub(crate) fn ended_with(&self, live: &Live, job: &Job) {
        self.tell_end(live, job, true);
    }

    /// It could not be stored, and will come again.
    pub(crate) fn not_ended(live: &Live) {
        live.forgo_end();
    }

    fn ended_job(live: &Live, end: End) -> Job {
        let mut job = live.job();
        let [stdout, stderr] = lock(&live.spool).seen();
        (job.stdout_bytes, job.stderr_bytes) = (stdout, stderr);
        match end {
            End::Result(result) => {
                if let Ok(totals) = serde_json::from_str::<Totals>(result.get()) {
                    job.stdout_bytes = stdout.max(totals.stdout_bytes);
                    job.stderr_bytes = stderr.max(totals.stderr_bytes);
                }
                job.result = Some(result);
            }
            End::Error(error) => {
                job.error = serde_json::value::to_raw_value(&error).ok();
            }
        }
        job.state = JobState::Ended;
        job
    }

    fn tell_end(&self, live: &Live, job: &Job, stored: bool) {
        lock(&live.job).job = job.clone();
        if stored {
            lock(&self.open).remove(&job.token);
        }
        log::info!("job {} on {} has ended", job.token, job.agent);
        live.written.send_modify(|written| written.ended = true);
        self.publish(job);
    }

    async fn store(&self, job: &Job) -> Result<()> {
        let row = job.clone();
        self.db.call(move |store| store.end_job(&row)).await
    }

    /// Stores the ends that could not be stored when they came.
    pub async fn store_again(&self) {
        let unstored = std::mem::take(&mut *lock(&self.unstored));
        let mut left = Vec::new();
        for live in unstored {
            let job = live.job();
            match self.store(&job).await {
                Ok(()) => {
                    lock(&self.open).remove(&job.token);
                }
                Err(_) => left.push(live),
            }
        }
        if !left.is_empty() {
            log::error!("the ends of {} jobs are not stored yet", left.len());
        }
        lock(&self.unstored).append(&mut left);
    }

    /// Remembers that the conversation `cancel` is about `job`.
    pub fn cancelling(&self, cancel: &str, job: &str) {
        let mut cancels = lock(&self.cancels);
        if cancels.len() >= MAX_CANCELS {
            cancels.pop_front();
        }
        cancels.push_back((cancel.to_owned(), job.to_owned()));
    }

    /// The job that an answer to a cancel is about.
    pub fn cancelled(&self, conversation: &str) -> Option<String> {
        let mut cancels = lock(&self.cancels);
        let at = cancels.iter().position(|(id, _)| id == conversation)?;
        cancels.remove(at).map(|(_, job)| job)
    }

    fn publish(&self, job: &Job) {
        self.events.publish(|| Change::Job(job.token.clone()));
    }
}

/// What is known of a stream's length when the job has ended.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Totals {
    stdout_bytes: u64,
    stderr_bytes: u64,
}

/// What a request says of the output.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Asked {
    output: payload::OutputMode,
}

/// A store that failed while something was asked of it.
impl From<StoreError> for payload::Error {
    fn from(e: StoreError) -> Self {
        Self::new(payload::ErrorCode::Io, e.to_string())
    }
}

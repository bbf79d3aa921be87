//! What the pool knows: jobs on their way, and for a while those that have ended. Plain data, no I/O; the pool keeps
//! it behind its one lock.

use super::request::Plan;
use super::{Origin, Settings};
use crate::message::Message;
use crate::message::payload::{self, JobResult, Tail};
use crate::outbox::Outbox;
use crate::sys::wake::Wake;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Requests with the same token, from elsewhere, that get the end of a job as well.
const FOLLOWERS: usize = 4;

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// It came to an end that a result tells.
    Result(JobResult),
    /// It could not be started.
    Error(payload::Error),
}

impl Ending {
    pub(super) fn to_message(&self, conversation_id: &str) -> Message {
        match self {
            Self::Result(result) => Message::within(conversation_id, payload::RESULT, result),
            Self::Error(error) => Message::within(conversation_id, payload::ERROR, error),
        }
    }

    fn tail_bytes(&self) -> usize {
        match self {
            Self::Result(result) => result.tail.stdout.data.len() + result.tail.stderr.data.len(),
            Self::Error(_) => 0,
        }
    }

    fn without_tail(&self) -> Self {
        match self {
            Self::Result(result) => Self::Result(JobResult {
                tail: Tail::default(),
                ..result.clone()
            }),
            Self::Error(error) => Self::Error(error.clone()),
        }
    }
}

/// A job on its way, for lists.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobState {
    /// Its token.
    pub token: String,
    /// `waiting` or `running`.
    pub state: &'static str,
    /// The program's name, without arguments: those may hold secrets.
    pub what: String,
    /// Unix time of its start, once it has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<f64>,
    /// Who asked for it.
    pub origin: Origin,
}

/// Where answers go.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub sink: Arc<Outbox>,
    pub conversation_id: String,
}

impl Asker {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.sink, &other.sink) && self.conversation_id == other.conversation_id
    }
}

/// A checked job.
#[derive(Debug)]
pub(super) struct Job {
    pub token: String,
    pub asker: Asker,
    pub origin: Origin,
    pub plan: Plan,
}

/// That a job is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub why: Why,
    /// From the SIGTERM to the SIGKILL.
    pub grace: Duration,
    /// How often it was said. The second time means at once.
    pub times: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Asked,
    ClientGone,
    AgentStops,
}

impl Why {
    pub fn message(self) -> Option<&'static str> {
        match self {
            Self::Asked => None,
            Self::ClientGone => Some("the client that asked for it is gone"),
            Self::AgentStops => Some("the agent stops"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Being recorded; no worker may have it yet.
    Accepting,
    Waiting,
    Running,
}

#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    phase: Phase,
    order: Option<Order>,
    /// The worker's, while it runs.
    wake: Option<Arc<Wake>>,
    started_at: Option<f64>,
    followers: Vec<Asker>,
}

/// What [`Registry::admit`] says to a new request.
pub(super) enum Admission {
    /// Go on: record it, then [`Registry::enqueue`].
    New,
    /// The token is known and its job on its way.
    Known(&'static str),
    /// The token is known and its job has ended.
    Ended(Arc<Ending>),
    Refused(payload::Error),
}

/// What [`Registry::order`] leaves to do.
pub(super) enum Ordered {
    Unknown,
    /// The worker was rung.
    Told,
    /// It had not started: the caller ends it.
    NeverStarted(Order),
}

/// What a worker finds to do.
pub(super) enum Next {
    Job(Arc<Job>),
    /// Nothing now; the earliest time at which there is.
    Wait(Option<f64>),
    Stop,
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    /// In the order of their coming.
    entries: Vec<Entry>,
    ended: VecDeque<(String, Arc<Ending>)>,
    /// Of the ended ones, so many from the oldest have lost their tails.
    stripped: usize,
    tail_bytes: usize,
    pub stopping: bool,
    /// Threads that live.
    pub workers: usize,
    /// Those of them that wait for work.
    pub idle: usize,
    /// Whether one of the idle ones watches the clock for jobs that wait for their time.
    pub timekeeper: bool,
}

impl Registry {
    fn find(&mut self, token: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|e| e.job.token == token)
    }

    /// What becomes of a request with this token. `New` reserves its place.
    pub fn admit(
        &mut self,
        token: &str,
        asker: &Asker,
        job: Result<Arc<Job>, payload::Error>,
        settings: &Settings,
        now: f64,
    ) -> Admission {
        if let Some(entry) = self.find(token) {
            let known = entry.job.asker.is(asker) || entry.followers.iter().any(|f| f.is(asker));
            if !known && entry.followers.len() >= FOLLOWERS {
                return Admission::Refused(payload::Error::new(
                    payload::ErrorCode::Busy,
                    format!("{FOLLOWERS} others wait for the end of this job already"),
                ));
            }
            if !known {
                entry.followers.push(asker.clone());
            }
            return Admission::Known(if entry.phase == Phase::Running {
                "running"
            } else {
                "waiting"
            });
        }
        if let Some((_, ending)) = self.ended.iter().find(|(t, _)| t == token) {
            return Admission::Ended(Arc::clone(ending));
        }
        let job = match job {
            Ok(job) => job,
            Err(error) => return Admission::Refused(error),
        };
        if self.stopping {
            return Admission::Refused(payload::Error::new(
                payload::ErrorCode::Refused,
                "the agent stops and starts nothing new",
            ));
        }
        // A job that a free worker will take does not wait.
        let (running, ready) = (self.running(), self.ready(now).count());
        let free = settings.workers.saturating_sub(running);
        let waiting = self.waiting() - ready.min(free);
        let starts_at_once = ready < free && job.plan.is_due(now);
        if waiting >= settings.queue && !starts_at_once {
            return Admission::Refused(payload::Error::new(
                payload::ErrorCode::Busy,
                format!("{running} jobs run and {waiting} wait already, more are not taken"),
            ));
        }
        self.entries.push(Entry {
            job,
            phase: Phase::Accepting,
            order: None,
            wake: None,
            started_at: None,
            followers: Vec::new(),
        });
        Admission::New
    }

    /// Lets an admitted job wait for a worker. If it was cancelled meanwhile, the caller ends it.
    pub fn enqueue(&mut self, token: &str) -> Option<Order> {
        let entry = self.find(token)?;
        entry.phase = Phase::Waiting;
        entry.order
    }

    fn ready(&self, now: f64) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |e| e.phase != Phase::Running && e.job.plan.is_due(now))
    }

    /// Whether jobs wait for their time.
    pub fn has_deferred(&self) -> bool {
        self.entries
            .iter()
            .any(|e| e.phase == Phase::Waiting && e.job.plan.not_before.is_some())
    }

    /// Whether there is more to do than there are workers waiting for it: each job to start now needs one, and one
    /// has to watch the clock for all that wait for their time.
    pub fn needs_worker(&self, now: f64, settings: &Settings) -> bool {
        let ready = self.ready(now).count();
        let watch = usize::from(self.waiting() > ready);
        self.workers < settings.workers && ready + watch > self.idle
    }

    /// Gives a worker the oldest job whose time has come.
    pub fn next(&mut self, now: f64, wake: &Arc<Wake>) -> Next {
        if self.stopping {
            return Next::Stop;
        }
        let mut earliest = None::<f64>;
        for entry in &mut self.entries {
            if entry.phase != Phase::Waiting || entry.order.is_some() {
                continue;
            }
            match entry.job.plan.not_before {
                Some(time) if time > now => {
                    earliest = Some(earliest.map_or(time, |e| e.min(time)));
                }
                _ => {
                    entry.phase = Phase::Running;
                    entry.wake = Some(Arc::clone(wake));
                    return Next::Job(Arc::clone(&entry.job));
                }
            }
        }
        Next::Wait(earliest)
    }

    pub fn started(&mut self, token: &str, at: f64) {
        if let Some(entry) = self.find(token) {
            entry.started_at = Some(at);
        }
    }

    /// Tells a job to end.
    pub fn order(&mut self, token: &str, why: Why, grace: Duration) -> Ordered {
        let Some(entry) = self.find(token) else {
            return Ordered::Unknown;
        };
        let order = match entry.order {
            None => Order {
                why,
                grace,
                times: 1,
            },
            Some(order) => Order {
                // That the agent stops is what the worker has to know; else the first reason counts.
                why: if why == Why::AgentStops {
                    why
                } else {
                    order.why
                },
                grace: order.grace.min(grace),
                // Only who asks twice is in a hurry.
                times: order.times + u32::from(why == Why::Asked),
            },
        };
        entry.order = Some(order);
        match entry.phase {
            Phase::Accepting => Ordered::Told,
            Phase::Waiting => Ordered::NeverStarted(order),
            Phase::Running => {
                if let Some(wake) = &entry.wake {
                    wake.ring();
                }
                Ordered::Told
            }
        }
    }

    /// The order that a worker's job has got.
    pub fn order_of(&self, token: &str) -> Option<Order> {
        self.entries
            .iter()
            .find(|e| e.job.token == token)
            .and_then(|e| e.order)
    }

    /// Takes a job out and remembers its end. Who gets the askers reports it; a second caller gets nothing.
    pub fn end(
        &mut self,
        token: &str,
        ending: &Arc<Ending>,
        settings: &Settings,
    ) -> Option<(Arc<Job>, Vec<Asker>)> {
        let place = self.entries.iter().position(|e| e.job.token == token)?;
        let entry = self.entries.remove(place);
        self.ended.push_back((token.to_owned(), Arc::clone(ending)));
        self.tail_bytes += ending.tail_bytes();
        while self.ended.len() > settings.remembered {
            if let Some((_, oldest)) = self.ended.pop_front() {
                self.tail_bytes -= oldest.tail_bytes();
                self.stripped = self.stripped.saturating_sub(1);
            }
        }
        while self.tail_bytes > settings.remembered_bytes
            && let Some((_, oldest)) = self.ended.get_mut(self.stripped)
        {
            self.tail_bytes -= oldest.tail_bytes();
            *oldest = Arc::new(oldest.without_tail());
            self.stripped += 1;
        }
        Some((entry.job, entry.followers))
    }

    /// Takes an admitted job out again as if it had never come.
    pub fn withdraw(&mut self, token: &str) {
        self.entries.retain(|e| e.job.token != token);
    }

    /// Tokens of the jobs that were asked for through `sink`.
    pub fn tokens_of(&self, sink: &Arc<Outbox>) -> Vec<String> {
        self.entries
            .iter()
            .filter(|e| Arc::ptr_eq(&e.job.asker.sink, sink))
            .map(|e| e.job.token.clone())
            .collect()
    }

    pub fn tokens(&self) -> Vec<String> {
        self.entries.iter().map(|e| e.job.token.clone()).collect()
    }

    pub fn running(&self) -> usize {
        let running = |e: &&Entry| e.phase == Phase::Running;
        self.entries.iter().filter(running).count()
    }

    pub fn waiting(&self) -> usize {
        self.entries.len() - self.running()
    }

    pub fn list(&self) -> Vec<JobState> {
        self.entries
            .iter()
            .map(|entry| JobState {
                token: entry.job.token.clone(),
                state: if entry.phase == Phase::Running {
                    "running"
                } else {
                    "waiting"
                },
                what: entry.job.plan.name.clone(),
                started_at: entry.started_at,
                origin: entry.job.origin,
            })
            .collect()
    }
}

//! What the pool knows: jobs on their way. Those that have ended are the journal's. Plain data, no I/O; the pool keeps
//! it behind its one lock.

use super::request::{Act, Plan};
use super::task::Inbox;
use super::{Holds, Origin, Settings};
use crate::message::Message;
use crate::message::payload::{self, Progress};
use crate::outbox::Outbox;
use crate::sys::wake::Wake;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Requests with the same token, from elsewhere, that get the end of a job as well.
const FOLLOWERS: usize = 4;

/// A job on its way, for lists.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobState {
    /// Its token.
    pub token: String,
    /// The type of the request, such as `command`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `waiting` or `running`.
    pub state: &'static str,
    /// Unix time at which it was taken.
    pub accepted_at: f64,
    /// The program's name, without arguments: those may hold secrets.
    pub what: String,
    /// Unix time of its start, once it has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<f64>,
    /// Who asked for it.
    pub origin: Origin,
    /// How far it is, by its own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
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
    pub kind: String,
    pub accepted_at: f64,
    pub asker: Asker,
    pub origin: Origin,
    /// Bytes of the journal that are kept free for its end.
    pub reserve: usize,
    pub plan: Plan,
    #[expect(dead_code, reason = "it is let go with the job, that is all")]
    pub holds: Option<Arc<dyn Holds>>,
}

/// What a worker hears when it asks.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub order: Option<Order>,
    /// What its process has said of its progress since the last turn.
    pub progress: Option<Progress>,
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
    /// Its end is being recorded. It counts as running until that is done.
    Ending,
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
    /// Asked by the watchdog, and not answered yet.
    awaited: bool,
    /// The last that its process or task has said, and whether the worker has heard it.
    progress: Option<Progress>,
    progress_heard: bool,
    inbox: Inbox,
}

impl Entry {
    /// Whether it is out of the queue.
    fn runs(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Ending)
    }

    fn is_task(&self) -> bool {
        matches!(self.job.plan.act, Act::Task(_))
    }

    fn state(&self) -> &'static str {
        if self.runs() { "running" } else { "waiting" }
    }
}

/// What [`Registry::admit`] says to a new request.
pub(super) enum Admission {
    /// Go on: record it, then [`Registry::enqueue`].
    New(Arc<Job>),
    /// The token is known and its job on its way.
    Known(&'static str),
    /// The token is known and its job has come to its end, which the asker will get.
    Ending,
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
    pub stopping: bool,
    /// The act that it stops for, where it is known.
    pub stops_for: Option<&'static str>,
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
            // Whoever asks while the end is being recorded gets it as soon as it is, who asked before once more.
            let ending = entry.phase == Phase::Ending;
            let waits = entry.job.asker.is(asker) || entry.followers.iter().any(|f| f.is(asker));
            let known = waits && !ending;
            if !known && entry.followers.len() >= FOLLOWERS {
                return Admission::Refused(payload::Error::new(
                    payload::ErrorCode::Busy,
                    format!("{FOLLOWERS} others wait for the end of this job already"),
                ));
            }
            if !known {
                entry.followers.push(asker.clone());
            }
            return if ending {
                Admission::Ending
            } else {
                Admission::Known(entry.state())
            };
        }
        let job = match job {
            Ok(job) => job,
            Err(error) => return Admission::Refused(error),
        };
        if self.stopping {
            let text = match self.stops_for {
                Some(act) => {
                    format!("{act} has been asked for: the agent starts nothing new before it")
                }
                None => "the agent stops and starts nothing new".to_owned(),
            };
            return Admission::Refused(payload::Error::new(payload::ErrorCode::Refused, text));
        }
        // A job that a free worker will take does not wait.
        let (running, ready) = (self.running(), self.ready(now, settings));
        let free = settings.workers.saturating_sub(running);
        let waiting = self.waiting() - ready.min(free);
        let held_back =
            matches!(job.plan.act, Act::Task(_)) && self.ready_tasks(now) >= self.places(settings);
        let starts_at_once = ready < free && job.plan.is_due(now) && !held_back;
        if waiting >= settings.queue && !starts_at_once {
            return Admission::Refused(payload::Error::new(
                payload::ErrorCode::Busy,
                format!("{running} jobs run and {waiting} wait already, more are not taken"),
            ));
        }
        self.entries.push(Entry {
            job: Arc::clone(&job),
            phase: Phase::Accepting,
            order: None,
            wake: None,
            started_at: None,
            followers: Vec::new(),
            awaited: false,
            progress: None,
            progress_heard: true,
            inbox: Inbox::default(),
        });
        Admission::New(job)
    }

    /// Lets an admitted job wait for a worker. If it was cancelled meanwhile, the caller ends it.
    pub fn enqueue(&mut self, token: &str) -> Option<Order> {
        let entry = self.find(token)?;
        entry.phase = Phase::Waiting;
        entry.order
    }

    fn due(&self, now: f64) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |e| !e.runs() && e.job.plan.is_due(now))
    }

    fn ready_tasks(&self, now: f64) -> usize {
        self.due(now).filter(|e| e.is_task()).count()
    }

    /// How many more tasks may run. They may wait for a connection, for a day: the last worker is not theirs, so that
    /// commands and the schedule go on.
    fn places(&self, settings: &Settings) -> usize {
        let run = self.entries.iter().filter(|e| e.runs() && e.is_task());
        (settings.workers.max(2) - 1).saturating_sub(run.count())
    }

    /// Jobs that a free worker may have at once.
    fn ready(&self, now: f64, settings: &Settings) -> usize {
        let tasks = self.ready_tasks(now);
        self.due(now).count() - tasks + tasks.min(self.places(settings))
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
        let ready = self.ready(now, settings);
        let watch = usize::from(self.waiting() > self.due(now).count());
        self.workers < settings.workers && ready + watch > self.idle
    }

    /// Gives a worker the oldest job whose time has come.
    pub fn next(&mut self, now: f64, wake: &Arc<Wake>, settings: &Settings) -> Next {
        if self.stopping {
            return Next::Stop;
        }
        let mut earliest = None::<f64>;
        let places = self.places(settings);
        for entry in &mut self.entries {
            if entry.phase != Phase::Waiting || entry.order.is_some() {
                continue;
            }
            match entry.job.plan.not_before {
                Some(time) if time > now => {
                    earliest = Some(earliest.map_or(time, |e| e.min(time)));
                }
                _ if places == 0 && entry.is_task() => {}
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
            Phase::Ending => Ordered::Unknown,
            Phase::Waiting => Ordered::NeverStarted(order),
            Phase::Running => {
                if let Some(wake) = &entry.wake {
                    wake.ring();
                }
                Ordered::Told
            }
        }
    }

    /// What there is for a worker to know of its job. The worker asks at each of its turns, so it lives.
    pub fn turn_of(&mut self, token: &str) -> Turn {
        let Some(entry) = self.find(token) else {
            return Turn::default();
        };
        entry.awaited = false;
        let heard = std::mem::replace(&mut entry.progress_heard, true);
        Turn {
            order: entry.order,
            progress: entry.progress.clone().filter(|_| !heard),
        }
    }

    /// A job's process says how far it is. False where no such job runs.
    pub fn set_progress(&mut self, token: &str, progress: Progress) -> bool {
        let entry = self.find(token).filter(|e| e.phase == Phase::Running);
        let Some(entry) = entry else { return false };
        entry.progress = Some(progress);
        entry.progress_heard = false;
        if let Some(wake) = &entry.wake {
            wake.ring();
        }
        true
    }

    /// A task says how far it is, for lists: what its peer is told is its own concern.
    pub fn note_progress(&mut self, token: &str, progress: &Progress) {
        if let Some(entry) = self.find(token) {
            entry.progress = Some(progress.clone());
        }
    }

    /// Hands a message to the running job of its conversation that came from this peer. It comes back where there is
    /// none, or where more came than a job asks for.
    pub fn deliver(&mut self, message: Message, from: &Arc<Outbox>) -> Result<(), Message> {
        let entry = self.entries.iter_mut().find(|e| {
            e.phase == Phase::Running
                && e.job.asker.conversation_id == message.conversation_id
                && Arc::ptr_eq(&e.job.asker.sink, from)
        });
        let Some(entry) = entry else {
            return Err(message);
        };
        entry.inbox.put(message)?;
        if let Some(wake) = &entry.wake {
            wake.ring();
        }
        Ok(())
    }

    /// The next message for a job.
    pub fn take_message(&mut self, token: &str) -> Option<Message> {
        self.find(token)?.inbox.take()
    }

    /// Asks the workers that have a job for a sign of life. An idle one has given it by waiting.
    ///
    /// Not asked is whose process is being started, and who carries out a task: there the kernel may wait for a file, on
    /// a disk or server that is gone. That is one job's trouble, and no reason to end the agent with all others.
    pub fn ask(&mut self) {
        for entry in self.entries.iter_mut().filter(|e| e.runs()) {
            let may_hang = entry.started_at.is_none() || matches!(entry.job.plan.act, Act::Task(_));
            if entry.phase == Phase::Running && may_hang {
                continue;
            }
            entry.awaited = true;
            // Whose end is being recorded answers by going.
            if let Some(wake) = entry
                .wake
                .as_ref()
                .filter(|_| entry.phase == Phase::Running)
            {
                wake.ring();
            }
        }
    }

    /// Jobs whose workers have not answered.
    pub fn silent(&self) -> Vec<&str> {
        let silent = self.entries.iter().filter(|e| e.awaited);
        silent.map(|e| e.job.token.as_str()).collect()
    }

    /// A job has come to its end. Who gets the job records the end and then calls [`Registry::remove`]; a second
    /// caller gets nothing.
    pub fn begin_end(&mut self, token: &str) -> Option<Arc<Job>> {
        let entry = self.find(token).filter(|e| e.phase != Phase::Ending)?;
        entry.phase = Phase::Ending;
        Some(Arc::clone(&entry.job))
    }

    /// Takes a job out: its end is recorded, or it was not accepted. Returns who else waits for an answer.
    pub fn remove(&mut self, token: &str) -> Vec<Asker> {
        let place = self.entries.iter().position(|e| e.job.token == token);
        place.map_or_else(Vec::new, |place| self.entries.remove(place).followers)
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
        self.entries.iter().filter(|e| e.runs()).count()
    }

    pub fn waiting(&self) -> usize {
        self.entries.len() - self.running()
    }

    pub fn list(&self) -> Vec<JobState> {
        self.entries
            .iter()
            .map(|entry| JobState {
                token: entry.job.token.clone(),
                kind: entry.job.kind.clone(),
                accepted_at: entry.job.accepted_at,
                state: entry.state(),
                what: entry.job.plan.name.clone(),
                started_at: entry.started_at,
                origin: entry.job.origin,
                progress: entry.progress.clone(),
            })
            .collect()
    }
}

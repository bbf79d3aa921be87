//! The workers and who talks to them.

use super::ending::{self, Ending};
use super::registry::{Admission, Asker, Job, JobState, Next, Ordered, Registry, Why};
use super::request::Act;
use super::supervise::Supervision;
use super::task::{Context, Stop};
use super::{Origin, Request, Settings, Work, kind_of, request, spawn};
use crate::journal::{Acceptance, Journal, Refusal, Standing};
use crate::message::Message;
use crate::message::payload::{
    self, Accepted, Cancel, ErrorCode, JobResult, Progress, Record, Status,
};
use crate::outbox::Outbox;
use crate::service::watchdog::Part;
use crate::sys::{clock, poll, process, wake::Wake};
use crate::thread::Crew;
use serde::Serialize;
use std::io;
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Stack of a worker. Name services of some C libraries want more than a small one; what is not touched costs
/// address space only.
const STACK: usize = 256 * 1024;
/// Longest grace that a `cancel` may ask for.
const MAX_GRACE: f64 = 3600.0;
/// How long a clock that may be set at any moment is trusted while a job waits for its time.
const CLOCK_TRUST: Duration = Duration::from_secs(30);
/// [`Pool::stop`] has to fit procd's five seconds: so much for the jobs...
const MAX_STOP_GRACE: Duration = Duration::from_millis(3500);
/// ...and so much for killing and reporting what is left.
const STOP_REST: Duration = Duration::from_secs(1);
/// How long the watchdog tries to look at the workers; nobody holds their lock for longer than a moment.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// Runs jobs.
pub struct Pool {
    shared: Arc<Shared>,
    crew: Crew,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    settings: Settings,
    journal: Arc<Journal>,
    registry: Mutex<Registry>,
    /// Told when there is work, or none any more.
    work: Condvar,
    /// Told when a worker has gone.
    gone: Condvar,
    /// Processes that did not end after SIGKILL. Taken away when they do at last.
    unreaped: Mutex<Vec<Child>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is complete in itself: what a panicked thread leaves is sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Makes a pool. Its workers are started when they are needed, and stay: an agent that has run no job yet pays
    /// for none.
    pub fn start(settings: Settings, crew: &Crew, journal: Arc<Journal>) -> Arc<Self> {
        process::keep_children_waitable();
        let settings = Settings {
            workers: settings.workers.max(1),
            ..settings
        };
        Arc::new(Self {
            shared: Arc::new(Shared {
                settings,
                journal,
                registry: Mutex::default(),
                work: Condvar::new(),
                gone: Condvar::new(),
                unreaped: Mutex::default(),
            }),
            crew: crew.clone(),
            handles: Mutex::default(),
        })
    }

    /// Starts a worker if there are fewer than jobs to run.
    fn start_worker(&self) -> io::Result<()> {
        let number = {
            let mut registry = lock(&self.shared.registry);
            if registry.stopping || !registry.needs_worker(clock::trusted(), &self.shared.settings)
            {
                return Ok(());
            }
            registry.workers += 1;
            registry.workers
        };
        let shared = Arc::clone(&self.shared);
        let started = Wake::new().and_then(|wake| {
            let wake = Arc::new(wake);
            self.crew
                .spawn(&format!("job-{number}"), STACK, move || shared.work(&wake))
        });
        match started {
            Ok(handle) => lock(&self.handles).push(handle),
            Err(error) => {
                lock(&self.shared.registry).workers -= 1;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes a request. A refusal goes to its sink at once; else the job's begin and end go into the journal, and where
    /// a local client asks to its sink as well. A token that is known starts nothing: the answer is where its job
    /// stands.
    ///
    /// It may wait for the disk: what is accepted has to outlive a cut of power.
    pub fn submit(&self, request: Request) {
        let settings = &self.shared.settings;
        let asker = Asker {
            sink: request.sink,
            conversation_id: request.conversation_id,
        };
        let token = request.token;
        let (kind, accepted_at) = (request.kind, clock::now());
        let origin = request.origin;
        let not_before = match &request.work {
            Work::Command(command) => command.not_before,
            Work::Task(_, bounds) => bounds.not_before,
            Work::Refused(_) => None,
        };
        let deferred = not_before.is_some();
        let plan = request::check(&token, request.work, request.name, settings);
        let job = plan.map(|plan| {
            Arc::new(Job {
                token: token.clone(),
                kind,
                accepted_at,
                asker: asker.clone(),
                origin,
                reserve: ending::reserve(settings.kept(plan.output), settings.end_bytes),
                plan,
                holds: request.holds,
            })
        });
        let admission =
            lock(&self.shared.registry).admit(&token, &asker, job, settings, clock::trusted());
        let job = match admission {
            Admission::New(job) => job,
            Admission::Known(state) => {
                let state = Some(state.to_owned());
                return asker.tell(payload::ACCEPTED, &Accepted { state });
            }
            Admission::Ending => return,
            // What has ended is known, however little room there is for something new.
            Admission::Refused(error) => {
                return match self.shared.journal.find(&token) {
                    Some(Standing::Ended(record)) => asker.tell_again(&record),
                    Some(Standing::Open) | None => asker.tell(payload::ERROR, &error),
                };
            }
        };
        let acceptance = Acceptance {
            token: &token,
            conversation: &asker.conversation_id,
            what: &job.plan.name,
            origin: origin.as_str(),
            reserve: job.reserve,
        };
        if let Err(refusal) = self.shared.journal.accept(&acceptance) {
            return self.shared.not_accepted(&token, &asker, refusal);
        }
        log::debug!("job {token}: accepted");
        if origin == Origin::Local {
            asker.tell(payload::ACCEPTED, &Accepted::default());
        }
        let ordered = lock(&self.shared.registry).enqueue(&token);
        if let Some(order) = ordered {
            return self.shared.never_started(&token, order.why);
        }
        if let Err(error) = self.start_worker() {
            let has_none = lock(&self.shared.registry).workers == 0;
            if has_none {
                let message = format!("no thread can be started for it: {error}");
                let error = payload::Error::new(ErrorCode::Io, message);
                return self.shared.end(&token, Ending::Error(error));
            }
            log::warn!("no further worker can be started, jobs wait for those there are: {error}");
        }
        if deferred {
            // Whoever watches the clock has to learn of a time that may be earlier.
            self.shared.work.notify_all();
        } else {
            self.shared.work.notify_one();
        }
    }

    /// Ends a job: SIGTERM to its process group, after the grace SIGKILL. The second time, SIGKILL at once. The job's
    /// own end says what came of it; the error here is that there is no such job, or no more.
    pub fn cancel(&self, cancel: &Cancel) -> Result<(), payload::Error> {
        let grace = match cancel.grace_seconds {
            Some(seconds) if !seconds.is_nan() => {
                Duration::from_secs_f64(seconds.clamp(0.0, MAX_GRACE))
            }
            _ => self.shared.settings.grace,
        };
        if self.shared.order(&cancel.job, Why::Asked, grace) {
            Ok(())
        } else {
            Err(payload::Error::new(
                ErrorCode::NotFound,
                format!("no job {:?} waits or runs here", cancel.job),
            ))
        }
    }

    /// Ends the jobs of a client that has gone.
    pub fn cancel_of(&self, sink: &Arc<Outbox>) {
        let tokens = lock(&self.shared.registry).tokens_of(sink);
        for token in tokens {
            self.shared
                .order(&token, Why::ClientGone, self.shared.settings.grace);
        }
    }

    /// A job's process says how far it is. False where no such job runs.
    pub fn progress(&self, token: &str, progress: Progress) -> bool {
        lock(&self.shared.registry).set_progress(token, progress)
    }

    /// Hands a message to the running job whose conversation it belongs to. It comes back where there is none.
    pub fn deliver(&self, message: Message, from: &Arc<Outbox>) -> Result<(), Message> {
        lock(&self.shared.registry).deliver(message, from)
    }

    /// Whether a token is that of a job that ran here, as far as the journal goes back.
    pub fn knows(&self, token: &str) -> bool {
        self.shared.journal.find(token).is_some()
    }

    /// Whether it takes no jobs any more.
    pub fn stops(&self) -> bool {
        lock(&self.shared.registry).stopping
    }

    /// The act for which it takes no jobs any more, where it is known.
    pub fn stops_for(&self) -> Option<&'static str> {
        lock(&self.shared.registry).stops_for
    }

    /// How many jobs run.
    pub fn running(&self) -> usize {
        lock(&self.shared.registry).running()
    }

    /// How many jobs wait for a worker or for their time.
    pub fn waiting(&self) -> usize {
        lock(&self.shared.registry).waiting()
    }

    /// All jobs on their way, oldest first.
    pub fn list(&self) -> Vec<JobState> {
        lock(&self.shared.registry).list()
    }

    /// Says before [`Pool::stop`] what it will be for.
    pub fn will_stop_for(&self, act: &'static str) {
        lock(&self.shared.registry).stops_for = Some(act);
    }

    /// Takes no more jobs, ends those there are (SIGTERM, after `grace` SIGKILL), hands their results to their sinks and
    /// waits for the workers. Takes at most 4.5 seconds: a longer grace than 3.5 is cut, and a job that cannot be
    /// ended is reported all the same.
    pub fn stop(&self, grace: Duration) {
        let grace = grace.min(MAX_STOP_GRACE);
        let deadline = Instant::now() + grace + STOP_REST;
        let tokens = {
            let mut registry = lock(&self.shared.registry);
            registry.stopping = true;
            registry.tokens()
        };
        self.shared.work.notify_all();
        for token in tokens {
            self.shared.order(&token, Why::AgentStops, grace);
        }
        let left = {
            let mut registry = lock(&self.shared.registry);
            while registry.workers > 0 {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                registry = self
                    .shared
                    .gone
                    .wait_timeout(registry, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            registry.tokens()
        };
        for token in left {
            let result = JobResult::without_process(
                Status::Cancelled,
                Some("the agent stops and could not wait for its end"),
            );
            self.shared.end(&token, Ending::Result(result));
        }
        // A worker counts itself out in its last act, so that joining it takes no time. Who hangs is left behind.
        let all_gone = lock(&self.shared.registry).workers == 0;
        for handle in std::mem::take(&mut *lock(&self.handles)) {
            if all_gone || handle.is_finished() {
                let _ = handle.join();
            }
        }
        self.shared.reap();
    }
}

impl Part for Pool {
    fn ask(&self) {
        if let Some(mut registry) = lock_soon(&self.shared.registry) {
            registry.ask();
        }
    }

    fn silent(&self, _: Instant) -> Option<String> {
        let Some(registry) = lock_soon(&self.shared.registry) else {
            return Some("the pool of workers (its lock)".to_owned());
        };
        let silent = registry.silent();
        (!silent.is_empty()).then(|| format!("the worker of job {}", silent.join(", of job ")))
    }
}

/// Does not wait for ever, since it is for finding out whether somebody does.
fn lock_soon<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    let deadline = Instant::now() + LOOK_PATIENCE;
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

impl Asker {
    fn tell<T: Serialize>(&self, kind: &str, payload: &T) {
        let message = Message::within(&self.conversation_id, kind, payload);
        self.sink.push(message);
    }

    /// An end that is in the journal, to who asked for it again.
    fn tell_again(&self, record: &Record) {
        let message = Message::within(&self.conversation_id, kind_of(record), &record.data);
        self.sink.finish(message);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

impl Shared {
    /// Answers a request that the journal does not take.
    fn not_accepted(&self, token: &str, asker: &Asker, refusal: Refusal) {
        let answer = match refusal {
            Refusal::Known(Standing::Ended(record)) => Ok(record),
            Refusal::Known(Standing::Open) if self.journal.goes_on(token) => {
                let state = Some("running".to_owned());
                let accepted = Accepted { state };
                let followers = lock(&self.registry).remove(token);
                for asker in std::iter::once(asker).chain(&followers) {
                    asker.tell(payload::ACCEPTED, &accepted);
                }
                return;
            }
            // Its process is not here, so it will never end: what is open when the agent starts is ended there.
            Refusal::Known(Standing::Open) => {
                log::error!("the journal has a job {token} without an end that does not run here");
                let lost = Ending::lost();
                let (code, data) = (lost.code(), lost.data());
                self.journal.end(token, &asker.conversation_id, code, data);
                match self.journal.find(token) {
                    Some(Standing::Ended(record)) => Ok(record),
                    _ => Err(payload::Error::new(ErrorCode::Io, "its end is lost")),
                }
            }
            Refusal::Full(reason) => Err(payload::Error::new(ErrorCode::Busy, reason)),
            Refusal::Failed(reason) => Err(payload::Error::new(ErrorCode::Io, reason)),
        };
        let followers = lock(&self.registry).remove(token);
        for asker in std::iter::once(asker).chain(&followers) {
            match &answer {
                Ok(record) => asker.tell_again(record),
                Err(error) => asker.tell(payload::ERROR, error),
            }
        }
    }

    /// The one way out for every accepted job. Its token leaves the registry only when its end is in the journal, so
    /// that it is known at any time.
    fn end(&self, token: &str, ending: Ending) {
        let Some(job) = lock(&self.registry).begin_end(token) else {
            return;
        };
        match &ending {
            Ending::Result(result) => log::debug!(
                "job {token}: {:?} after {} ms",
                result.status,
                result.elapsed_ms
            ),
            Ending::Error(error) => log::debug!("job {token}: {}: {}", error.code, error.message),
        }
        let ending = ending.fit(job.reserve);
        let succeeded = ending.code() == payload::code::SUCCEEDED;
        let conversation = &job.asker.conversation_id;
        self.journal
            .end(token, conversation, ending.code(), ending.data());
        let followers = lock(&self.registry).remove(token);
        // Poseidon gets it from the journal.
        let client = (job.origin != Origin::Poseidon).then_some(&job.asker);
        for asker in client.into_iter().chain(&followers) {
            asker.sink.finish(ending.to_message(&asker.conversation_id));
        }
        if let (true, Act::Task(task)) = (succeeded, &job.plan.act) {
            task.after();
        }
    }

    fn never_started(&self, token: &str, why: Why) {
        let result = JobResult::without_process(Status::Cancelled, why.message());
        self.end(token, Ending::Result(result));
    }

    /// False where there is no such job.
    fn order(&self, token: &str, why: Why, grace: Duration) -> bool {
        let ordered = lock(&self.registry).order(token, why, grace);
        match ordered {
            Ordered::Unknown => false,
            Ordered::Told => true,
            Ordered::NeverStarted(order) => {
                self.never_started(token, order.why);
                true
            }
        }
    }

    /// A worker's life.
    fn work(&self, wake: &Arc<Wake>) {
        while let Some(job) = self.next(wake) {
            let ending = self.run(&job, wake);
            let token = job.token.clone();
            drop(job);
            match ending {
                Some(ending) => self.end(&token, ending),
                None => drop(lock(&self.registry).remove(&token)),
            }
            self.reap();
        }
        lock(&self.registry).workers -= 1;
        self.gone.notify_all();
    }

    /// Waits for a job; none when the pool stops.
    fn next(&self, wake: &Arc<Wake>) -> Option<Arc<Job>> {
        let mut registry = lock(&self.registry);
        loop {
            let now = clock::trusted();
            match registry.next(now, wake, &self.settings) {
                Next::Stop => return None,
                Next::Job(job) => {
                    if !registry.timekeeper && registry.has_deferred() {
                        // Who watched the clock may have been this one: let another look.
                        self.work.notify_one();
                    }
                    return Some(job);
                }
                Next::Wait(time) => {
                    registry.idle += 1;
                    let watch = time.filter(|_| !registry.timekeeper);
                    registry = if let Some(time) = watch {
                        registry.timekeeper = true;
                        let wait = Duration::try_from_secs_f64(time - now)
                            .unwrap_or(CLOCK_TRUST)
                            .clamp(Duration::from_millis(1), CLOCK_TRUST);
                        let mut registry = self
                            .work
                            .wait_timeout(registry, wait)
                            .unwrap_or_else(PoisonError::into_inner)
                            .0;
                        registry.timekeeper = false;
                        registry
                    } else {
                        self.work
                            .wait(registry)
                            .unwrap_or_else(PoisonError::into_inner)
                    };
                    registry.idle -= 1;
                }
            }
        }
    }

    /// How the job ended; none where the agent's next process tells that.
    fn run(&self, job: &Job, wake: &Arc<Wake>) -> Option<Ending> {
        let turn = || lock(&self.registry).turn_of(&job.token);
        if let Some(order) = turn().order {
            return Some(Ending::Result(JobResult::without_process(
                Status::Cancelled,
                order.why.message(),
            )));
        }
        if let Some(time) = job.plan.not_after
            && clock::trusted() > time
        {
            let message = "its time had passed before it could start";
            let expired = JobResult::without_process(Status::Expired, Some(message));
            return Some(Ending::Result(expired));
        }
        let started_at = clock::now();
        let process = match &job.plan.act {
            Act::Process(process) => process,
            Act::Task(task) => {
                lock(&self.registry).started(&job.token, started_at);
                let take = || lock(&self.registry).take_message(&job.token);
                let tell = |progress: &_| {
                    lock(&self.registry).note_progress(&job.token, progress);
                };
                let asker = (&*job.asker.sink, job.asker.conversation_id.as_str());
                let until = job.plan.timeout.map(poll::after);
                let gate = self.settings.gate.as_deref();
                let gate = gate.filter(|_| job.origin == Origin::Poseidon);
                let context = Context::new(&job.token, asker, wake, &turn, &take, &tell, until);
                let context = context.gated(gate);
                let started = Instant::now();
                let run = task.run(&context);
                if run == Err(Stop::GoesOn) {
                    return None;
                }
                return Some(match context.result(run, started_at, started) {
                    Ok(result) => Ending::Result(result),
                    Err(error) => Ending::Error(error),
                });
            }
        };
        let started = match spawn::spawn(process, &job.token, &self.settings) {
            Ok(started) => started,
            Err(error) => return Some(Ending::Error(error)),
        };
        lock(&self.registry).started(&job.token, started_at);
        let supervision = Supervision::new(&self.settings, job, process, wake, &turn, started);
        let outcome = supervision.run(started_at);
        if let Some(child) = outcome.unreaped {
            lock(&self.unreaped).push(child);
        }
        Some(Ending::Result(outcome.result))
    }

    /// Takes away processes that have ended long after they should have.
    fn reap(&self) {
        lock(&self.unreaped).retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Task;
    use super::*;
    use crate::journal;
    use crate::message::payload::Bounds;
    use crate::outbox::Limits;
    use serde_json::Value;
    use std::path::Path;

    fn pool(folder: &Path) -> Arc<Pool> {
        let journal = Journal::open(&journal::Settings {
            folder: folder.join("journal"),
            state: folder.to_owned(),
            bytes: 65_536,
            memory_bytes: 32_768,
            sync: false,
            goes_on: None,
        });
        let crew = Crew::new(|name| panic!("{name} panicked"));
        Pool::start(Settings::default(), &crew, Arc::new(journal.unwrap()))
    }

    /// A disk that hangs, until the lock is free.
    #[derive(Debug)]
    struct Hangs(Arc<Mutex<()>>);

    impl Task for Hangs {
        fn name(&self) -> &'static str {
            "hangs"
        }

        fn run(&self, _: &Context<'_>) -> Result<Option<Value>, Stop> {
            drop(lock(&self.0));
            Ok(None)
        }
    }

    #[test]
    fn a_disk_that_hangs_is_the_trouble_of_its_task() {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool(folder.path());
        let limits = Limits {
            control: 8,
            output_bytes: 1,
        };
        let sink = Arc::new(Outbox::new(limits).unwrap());
        sink.set_online(true);
        let disk = Arc::new(Mutex::new(()));
        let hanging = lock(&disk);
        pool.submit(Request {
            token: "t".to_owned(),
            kind: "waits".to_owned(),
            conversation_id: "t".to_owned(),
            work: Work::Task(Arc::new(Hangs(Arc::clone(&disk))), Bounds::default()),
            name: None,
            holds: None,
            sink: Arc::clone(&sink),
            origin: Origin::Local,
        });
        let eventually = |what: &str, done: &dyn Fn() -> bool| {
            for _ in 0..2_000 {
                if done() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            panic!("{what}: not within 10 s");
        };
        eventually("it runs", &|| {
            pool.list().iter().any(|job| job.started_at.is_some())
        });
        pool.ask();
        assert_eq!(pool.silent(Instant::now()), None);
        drop(hanging);
        eventually("it has ended", &|| pool.running() == 0);
    }

    #[test]
    fn a_lock_that_is_held_is_no_sign_of_life() {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool(folder.path());
        let looked = || {
            pool.ask();
            pool.silent(Instant::now())
        };
        assert_eq!(looked(), None);
        let held = lock(&pool.shared.registry);
        let silent = std::thread::scope(|scope| scope.spawn(looked).join().unwrap());
        assert!(silent.unwrap().contains("its lock"));
        drop(held);
        assert_eq!(looked(), None);
    }
}

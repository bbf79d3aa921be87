//! Jobs that the agent carries out itself: transfers, synchronisations, acts on the agent and the system.

use super::gate::{self, Gate};
use super::registry::{Order, Turn, Why};
use crate::message::Message;
use crate::message::payload::{self, ErrorCode, JobResult, Progress, Status, Stream};
use crate::outbox::{Offer, Outbox};
use crate::sys::poll::{self, IN, PollSet};
use crate::sys::wake::Wake;
use serde::Serialize;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

/// Something that takes time and is no process. It runs on a worker, may block for as long as a disk does, and asks its
/// [`Context`] at each step whether it is to go on.
pub trait Task: Send + Sync {
    /// What lists show.
    fn name(&self) -> &str;

    /// Carries it out; what it returns is the result's `data`. It cleans up behind itself, however it ends.
    fn run(&self, context: &Context<'_>) -> Result<Option<Value>, Stop>;

    /// Called once, when its success is in the journal: for what ends the agent itself.
    fn after(&self) {}
}

/// Its name and no more: a device would carry code for every part of every task.
impl Debug for dyn Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a task ends early.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    /// It cannot go on.
    Failed(payload::Error),
    /// It was cancelled or its time is up: the context knows which.
    Ended,
    /// It has ended otherwise than by carrying it out itself, and who did says how.
    Told(Box<Told>),
    /// The agent restarts, and its next process tells the end ([`crate::journal::Settings::goes_on`]).
    GoesOn,
}

/// What somebody else says of a task's end.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Whether it did what it was to do.
    pub succeeded: bool,
    /// In words.
    pub message: Option<String>,
    /// For programs.
    pub data: Option<Value>,
}

impl From<payload::Error> for Stop {
    fn from(error: payload::Error) -> Self {
        Self::Failed(error)
    }
}

impl Stop {
    /// It cannot go on.
    pub fn failed(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Failed(payload::Error::new(code, message))
    }
}

/// What a task has of the world: its peer, and whoever wants it to end.
pub struct Context<'a> {
    token: &'a str,
    sink: &'a Outbox,
    conversation: &'a str,
    wake: &'a Arc<Wake>,
    turn: &'a dyn Fn() -> Turn,
    take: &'a dyn Fn() -> Option<Message>,
    tell: &'a dyn Fn(&Progress),
    timeout_at: Option<Instant>,
    gate: Option<&'a dyn Gate>,
    order: Cell<Option<Order>>,
    timed_out: Cell<Option<&'static str>>,
    /// The outbox's count of changes, when the task last heard of one.
    changes: Cell<u32>,
    /// Whether something was asked for twice in this job, so that answers may come twice.
    asked_twice: Cell<bool>,
    /// Said, and not handed over yet.
    progress: RefCell<Option<Progress>>,
    /// Output that was handed over or dropped, of each stream.
    written: [Cell<u64>; 2],
    dropped: Cell<u64>,
}

impl<'a> Context<'a> {
    /// `turn` tells what the pool wants of this job, `take` gives the messages for it; `wake` is rung when either has
    /// changed. `tell` hears its progress.
    pub(super) fn new(
        token: &'a str,
        asker: (&'a Outbox, &'a str),
        wake: &'a Arc<Wake>,
        turn: &'a dyn Fn() -> Turn,
        take: &'a dyn Fn() -> Option<Message>,
        tell: &'a dyn Fn(&Progress),
        timeout_at: Option<Instant>,
    ) -> Self {
        let (sink, conversation) = asker;
        Self {
            token,
            sink,
            conversation,
            wake,
            turn,
            take,
            tell,
            timeout_at,
            gate: None,
            order: Cell::new(None),
            timed_out: Cell::new(None),
            changes: Cell::new(sink.changes()),
            asked_twice: Cell::new(false),
            progress: RefCell::default(),
            written: [Cell::new(0), Cell::new(0)],
            dropped: Cell::new(0),
        }
    }

    /// Asks `gate` where it has got to.
    pub(super) fn gated(self, gate: Option<&'a dyn Gate>) -> Self {
        Self { gate, ..self }
    }

    /// Whether a message of this type may use what is open, or what is to be at `rest` in that folder. To be asked
    /// before it is used, however it was found.
    pub fn permit(&self, kind: &str, file: &File, rest: &str) -> Result<(), Stop> {
        match self.gate {
            Some(gate) => gate::ask(gate, kind, file, rest),
            None => Ok(()),
        }
    }

    /// The job's token.
    pub fn token(&self) -> &str {
        self.token
    }

    /// Whether there is a connection to who asked.
    pub fn is_online(&self) -> bool {
        self.sink.is_online()
    }

    /// Something is asked for once more. What was asked for first may be answered as well, at any time from now on.
    pub fn ask_twice(&self) {
        self.asked_twice.set(true);
    }

    /// Whether answers may come for which nothing waits any more.
    pub fn asked_twice(&self) -> bool {
        self.asked_twice.get()
    }

    /// Whether to go on. To be asked at each step, a few times a second where that is possible.
    pub fn check(&self) -> Result<(), Stop> {
        if let Some(order) = (self.turn)().order {
            self.order.set(Some(order));
            return Err(Stop::Ended);
        }
        if self.timeout_at.is_some_and(|at| at <= Instant::now()) {
            return Err(self.too_late("its time was up before it was done"));
        }
        self.hand_over_progress();
        Ok(())
    }

    /// Ends the task as timed out.
    pub fn too_late(&self, why: &'static str) -> Stop {
        self.timed_out.set(Some(why));
        Stop::Ended
    }

    /// Says how far it is. Of several that could not be sent yet the last counts.
    pub fn progress(&self, percent: f64, message: impl Into<String>) {
        let progress = Progress {
            percent,
            message: message.into(),
        };
        (self.tell)(&progress);
        *self.progress.borrow_mut() = Some(progress);
        self.hand_over_progress();
    }

    fn hand_over_progress(&self) {
        let Some(progress) = self.progress.take() else {
            return;
        };
        let message = Message::within(self.conversation, payload::PROGRESS, &progress);
        if let Offer::Full(_) = self.sink.offer(message, self.wake) {
            *self.progress.borrow_mut() = Some(progress);
        }
    }

    /// Sends a message of the job's conversation ahead of all output.
    pub fn send<T: Serialize>(&self, kind: &str, payload: &T) {
        let message = Message::within(self.conversation, kind, payload);
        self.sink.push(message);
    }

    /// Writes to the job's standard output; waits for room. Without a connection it is dropped and counted.
    pub fn output(&self, bytes: &[u8]) -> Result<(), Stop> {
        self.output_on(Stream::Stdout, bytes)
    }

    /// The same on either stream.
    pub fn output_on(&self, stream: Stream, bytes: &[u8]) -> Result<(), Stop> {
        let written = &self.written[stream as usize];
        let piece = payload::Output::new(stream, written.get(), bytes);
        let length = bytes.len() as u64;
        written.set(written.get() + length);
        if !self.send_bulk(payload::OUTPUT, &piece)? {
            self.dropped.set(self.dropped.get() + length);
        }
        Ok(())
    }

    /// Sends a message of the job's conversation among the output of all jobs; waits for room. False where there is no
    /// connection.
    pub fn send_bulk<T: Serialize>(&self, kind: &str, payload: &T) -> Result<bool, Stop> {
        let mut message = Message::within(self.conversation, kind, payload);
        loop {
            self.check()?;
            match self.sink.offer(message, self.wake) {
                Offer::Taken => return Ok(true),
                Offer::Offline => return Ok(false),
                Offer::Full(back) => message = back,
            }
            self.wait(None);
        }
    }

    /// The next message of the job's conversation, such as a `data.response`; none where the deadline passes, or the
    /// connection has come or gone since the last time, even if that was between two calls.
    pub fn receive(&self, deadline: Option<Instant>) -> Result<Option<Message>, Stop> {
        loop {
            self.check()?;
            if let Some(message) = (self.take)() {
                return Ok(Some(message));
            }
            let changes = self.sink.changes();
            if self.changes.replace(changes) != changes
                || deadline.is_some_and(|at| at <= Instant::now())
            {
                return Ok(None);
            }
            self.sink.tell_of_connection(self.wake);
            // It may have changed before that.
            if self.sink.changes() == changes {
                self.wait(deadline);
            }
        }
    }

    /// Rings this task out of [`Context::pause`]; also rung by whoever wants it to end.
    pub fn wake(&self) -> &Arc<Wake> {
        self.wake
    }

    /// Waits until its wake is rung, or for a time.
    pub fn pause(&self, deadline: Option<Instant>) {
        wait(self.wake, deadline);
    }

    /// When its time is up.
    pub fn timeout_at(&self) -> Option<Instant> {
        self.timeout_at
    }

    /// How long it has to end in order where it was told to end, and whether it was told again, which means at once.
    pub fn ordered(&self) -> Option<(std::time::Duration, bool)> {
        let order = (self.turn)().order?;
        Some((order.grace, order.times > 1))
    }

    /// Waits for a time, or until it is to end.
    pub fn sleep_until(&self, deadline: Instant) -> Result<(), Stop> {
        loop {
            self.check()?;
            if deadline <= Instant::now() {
                return Ok(());
            }
            self.wait(Some(deadline));
        }
    }

    fn wait(&self, deadline: Option<Instant>) {
        let deadline = [deadline, self.timeout_at].into_iter().flatten().min();
        wait(self.wake, deadline);
    }

    /// The end of a task, by what it returned.
    pub(super) fn result(
        &self,
        run: Result<Option<Value>, Stop>,
        started_at: f64,
        started: Instant,
    ) -> Result<JobResult, payload::Error> {
        let mut said = None;
        let (status, message, data) = match run {
            Ok(data) => (Status::Succeeded, None, data),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Told(told)) => {
                let status = if told.succeeded {
                    Status::Succeeded
                } else {
                    Status::Failed
                };
                said = told.message;
                (status, None, told.data)
            }
            Err(Stop::Ended | Stop::GoesOn) => match self.order.get() {
                Some(order) => (Status::Cancelled, order.why.message(), None),
                None => match self.timed_out.get() {
                    Some(why) => (Status::TimedOut, Some(why), None),
                    None => (Status::Cancelled, Why::Asked.message(), None),
                },
            },
        };
        let elapsed = started.elapsed().as_millis();
        let result = JobResult::without_process(status, message);
        Ok(JobResult {
            started_at: Some(started_at),
            elapsed_ms: u64::try_from(elapsed).unwrap_or(u64::MAX),
            stdout_bytes: self.written[0].get(),
            stderr_bytes: self.written[1].get(),
            dropped: self.dropped.get(),
            data,
            message: said.or(result.message),
            ..result
        })
    }
}

fn wait(wake: &Wake, deadline: Option<Instant>) {
    let mut set = PollSet::new();
    set.add(wake.as_fd(), IN);
    if set.wait(deadline).is_err() {
        // The kernel is short of memory: not at once again.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    wake.clear();
}

/// Messages for a running task.
#[derive(Debug, Default)]
pub(super) struct Inbox(VecDeque<Message>);

impl Inbox {
    /// Messages that wait for a task at most: more than it can have asked for.
    const LIMIT: usize = 64;

    /// It comes back where there is no room.
    pub fn put(&mut self, message: Message) -> Result<(), Message> {
        if self.0.len() >= Self::LIMIT {
            return Err(message);
        }
        self.0.push_back(message);
        Ok(())
    }

    pub fn take(&mut self) -> Option<Message> {
        self.0.pop_front()
    }
}

/// A deadline that is `seconds` away.
pub fn after_seconds(seconds: f64) -> Instant {
    let wait = std::time::Duration::try_from_secs_f64(seconds.max(0.0));
    poll::after(wait.unwrap_or(std::time::Duration::MAX))
}

//! One worker, one process: from its start until nothing of it is left to read.

use super::Settings;
use super::output::{Delivery, Source};
use super::registry::{Job, Turn, Why};
use super::request::Process;
use super::spawn::Started;
use crate::message::payload::{JobResult, Status, Stream, Tail};
use crate::sys::poll::{self, IN, OUT, PollSet};
use crate::sys::process::{self, Pid};
use crate::sys::wake::Wake;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A killed process that has not ended by then hangs in the kernel (a dead disk, a dead NFS server).
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// The same where the agent itself has to be gone in five seconds.
const KILL_PATIENCE_AT_STOP: Duration = Duration::from_millis(500);
/// How often an ending group is looked at.
const LINGER: Duration = Duration::from_millis(50);
/// Without a pidfd: how soon and how rarely an exit is looked for.
const LOOK_FIRST: Duration = Duration::from_millis(10);
const LOOK_LAST: Duration = Duration::from_millis(200);

/// Why a job is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Ordered(Why),
    TimedOut,
}

/// What is known of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Runs,
    /// It has ended, and is not reaped yet.
    Exited(Instant),
    /// It did not end though it was killed.
    Hangs,
}

/// What is left to write to the process.
struct Feed<'a> {
    pipe: File,
    data: &'a [u8],
}

impl Feed<'_> {
    /// Writes once; false where there is nothing left, or nobody who reads.
    fn write(&mut self) -> bool {
        match self.pipe.write(self.data) {
            Ok(count) => {
                self.data = &self.data[count..];
                !self.data.is_empty()
            }
            Err(error) => matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ),
        }
    }
}

pub(super) struct Supervision<'a> {
    settings: &'a Settings,
    job: &'a Job,
    wake: &'a Wake,
    turn: &'a dyn Fn() -> Turn,
    delivery: Delivery<'a>,
    child: Child,
    pid: Pid,
    pidfd: Option<OwnedFd>,
    feed: Option<Feed<'a>>,
    stdout: Source,
    stderr: Source,
    started: Instant,
    timeout_at: Option<Instant>,
    /// None as long as it may live.
    cause: Option<Cause>,
    /// The orders obeyed so far.
    obeyed: u32,
    stopping: bool,
    /// Whether the rest of its group has to go with it.
    sweep: bool,
    kill_at: Option<Instant>,
    give_up_at: Option<Instant>,
    life: Life,
    leak_at: Option<Instant>,
    leaked: bool,
    /// When to look again whether the rest of the group has gone: nothing tells of it.
    linger_at: Option<Instant>,
    stalled_since: Option<Instant>,
    look_at: Option<Instant>,
    look_every: Duration,
}

/// What came of it, and the process if it could not be ended.
pub(super) struct Outcome {
    pub result: JobResult,
    pub unreaped: Option<Child>,
}

impl<'a> Supervision<'a> {
    /// `turn` tells what the pool wants of this job; `wake` is rung when that has changed.
    pub fn new(
        settings: &'a Settings,
        job: &'a Job,
        process: &'a Process,
        wake: &'a Arc<Wake>,
        turn: &'a dyn Fn() -> Turn,
        started: Started,
    ) -> Self {
        let mode = job.plan.output;
        let keep = settings.kept(mode);
        // An empty text is an end at once: the pipe is dropped here.
        let feed = match (started.stdin, process.stdin.as_deref()) {
            (Some(pipe), Some(data)) if !data.is_empty() => Some(Feed {
                pipe: File::from(pipe),
                data,
            }),
            _ => None,
        };
        let has_pidfd = started.pidfd.is_some();
        Self {
            settings,
            job,
            wake,
            turn,
            delivery: Delivery::new(&job.asker.sink, &job.asker.conversation_id, wake),
            child: started.child,
            pid: started.pid,
            pidfd: started.pidfd,
            feed,
            stdout: Source::new(Stream::Stdout, started.stdout, mode, keep),
            stderr: Source::new(Stream::Stderr, started.stderr, mode, keep),
            started: started.at,
            timeout_at: job.plan.timeout.map(poll::after),
            cause: None,
            obeyed: 0,
            stopping: false,
            sweep: false,
            kill_at: None,
            give_up_at: None,
            life: Life::Runs,
            leak_at: None,
            leaked: false,
            linger_at: None,
            stalled_since: None,
            look_at: (!has_pidfd).then_some(started.at),
            look_every: LOOK_FIRST,
        }
    }

    /// Runs until the job is over.
    pub fn run(mut self, started_at: f64) -> Outcome {
        loop {
            self.obey();
            let now = Instant::now();
            self.linger_at = None;
            self.pass_deadlines(now);
            self.deliver(now);
            if !self.runs()
                && self.stdout.is_done()
                && self.stderr.is_done()
                && !self.delivery.is_stalled()
            {
                if !self.group_lingers() {
                    break;
                }
                self.linger_at = now.checked_add(LINGER);
            }
            self.wait();
        }
        self.finish(started_at)
    }

    /// Whether others of an ending job's group use the rest of its grace.
    fn group_lingers(&self) -> bool {
        self.sweep && self.kill_at.is_some() && process::has_other_members(self.pid)
    }

    fn runs(&self) -> bool {
        self.life == Life::Runs
    }

    fn obey(&mut self) {
        let turn = (self.turn)();
        if let Some(progress) = turn.progress {
            self.delivery.set_progress(progress);
        }
        let Some(order) = turn.order else { return };
        if order.why != Why::Asked {
            // Nobody waits for the rest of the output, or nobody has the time to.
            self.delivery.impatient = true;
        }
        let stops = order.why == Why::AgentStops && !self.stopping;
        if order.times == self.obeyed && !stops {
            return;
        }
        let again = order.times > 1 && order.times > self.obeyed;
        self.obeyed = order.times;
        self.stopping |= stops;
        self.end(Cause::Ordered(order.why), order.grace);
        if again {
            self.kill_at = self.kill_at.map(|_| Instant::now());
        }
        if self.stopping
            && let Some(at) = self.give_up_at
        {
            self.give_up_at = Some(at.min(poll::after(KILL_PATIENCE_AT_STOP)));
        }
    }

    /// Asks the whole group to end, and makes sure that it will.
    fn end(&mut self, cause: Cause, grace: Duration) {
        let kill_at = poll::after(grace);
        if self.cause.is_none() && self.runs() {
            self.cause = Some(cause);
        }
        if self.sweep {
            self.kill_at = self.kill_at.map(|at| at.min(kill_at));
            return;
        }
        self.sweep = true;
        self.kill_at = Some(kill_at);
        self.leak_at = None;
        if !grace.is_zero() {
            process::signal_group(self.pid, process::TERM);
        }
    }

    fn kill(&mut self, now: Instant) {
        process::signal_group(self.pid, process::KILL);
        self.kill_at = None;
        if self.runs() {
            let patience = if self.stopping {
                KILL_PATIENCE_AT_STOP
            } else {
                KILL_PATIENCE
            };
            self.give_up_at = now.checked_add(patience);
        }
    }

    fn pass_deadlines(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.runs() {
            if due(self.look_at) {
                self.look(now);
                self.look_at = now.checked_add(self.look_every);
                self.look_every = (self.look_every * 2).min(LOOK_LAST);
            }
            if due(self.timeout_at) {
                self.timeout_at = None;
                // It may have ended just in time.
                self.look(now);
                if self.runs() {
                    self.end(Cause::TimedOut, self.settings.grace);
                }
            }
        }
        if due(self.kill_at) {
            self.kill(now);
        }
        if due(self.give_up_at) {
            self.give_up_at = None;
            if self.runs() {
                self.life = Life::Hangs;
                self.let_go_of_pipes();
            }
        }
        if !self.runs() && !self.delivery.is_stalled() {
            if due(self.leak_at) {
                self.let_go_of_pipes();
            } else if self.leak_at.is_none() && self.kill_at.is_none() {
                self.leak_at = now.checked_add(self.settings.pipe_grace);
            }
        }
    }

    fn let_go_of_pipes(&mut self) {
        for source in [&mut self.stdout, &mut self.stderr] {
            self.leaked |= source.fd().is_some();
            source.close();
        }
    }

    /// Sees whether the process has ended.
    fn look(&mut self, now: Instant) {
        // An error means that somebody else has reaped it, so it has ended as well.
        if self.runs() && process::has_exited(self.pid).unwrap_or(true) {
            self.life = Life::Exited(now);
            self.give_up_at = None;
            self.feed = None;
        }
    }

    fn deliver(&mut self, now: Instant) {
        self.delivery.retry();
        self.delivery.pump(&mut self.stdout, now);
        self.delivery.pump(&mut self.stderr, now);
        // While nothing is read the time for reading does not run.
        if self.delivery.is_stalled() {
            self.stalled_since.get_or_insert(now);
        } else if let Some(since) = self.stalled_since.take() {
            let stalled = now.saturating_duration_since(since);
            self.leak_at = self.leak_at.and_then(|at| at.checked_add(stalled));
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let reading = !self.delivery.is_stalled();
        let living = self.runs();
        [
            self.timeout_at.filter(|_| living),
            self.look_at.filter(|_| living),
            self.give_up_at,
            self.kill_at,
            self.linger_at,
            self.leak_at.filter(|_| reading),
            self.stdout.due().filter(|_| reading),
            self.stderr.due().filter(|_| reading),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn wait(&mut self) {
        let deadline = self.next_deadline();
        let mut set = PollSet::new();
        let wake = set.add(self.wake.as_fd(), IN);
        let ended = match &self.pidfd {
            Some(pidfd) if self.runs() => Some(set.add(pidfd.as_fd(), IN)),
            _ => None,
        };
        // Without room nothing is read, so that the process has to wait: not even a hang-up is asked for, since
        // poll would report it again and again.
        let reading = !self.delivery.is_stalled();
        let stdout = self
            .stdout
            .fd()
            .filter(|_| reading)
            .map(|fd| set.add(fd, IN));
        let stderr = self
            .stderr
            .fd()
            .filter(|_| reading)
            .map(|fd| set.add(fd, IN));
        let feed = self
            .feed
            .as_ref()
            .map(|feed| set.add(feed.pipe.as_fd(), OUT));
        if set.wait(deadline).is_err() {
            // The kernel is short of memory. All that can be done is to try again, not too soon.
            std::thread::sleep(LOOK_FIRST);
            let now = Instant::now();
            drop(set);
            self.look(now);
            return;
        }
        let ready = |place: Option<usize>| place.is_some_and(|place| set.ready(place) != 0);
        let (ended, stdout, stderr, feed) =
            (ready(ended), ready(stdout), ready(stderr), ready(feed));
        let rung = set.ready(wake) != 0;
        let now = Instant::now();
        if rung {
            self.wake.clear();
        }
        if stdout {
            self.stdout.read(now);
        }
        if stderr {
            self.stderr.read(now);
        }
        if feed && self.feed.as_mut().is_some_and(|feed| !feed.write()) {
            self.feed = None;
        }
        if ended {
            self.look(now);
        }
    }

    fn finish(mut self, started_at: f64) -> Outcome {
        let ended = match self.life {
            Life::Exited(at) => at,
            Life::Runs | Life::Hangs => Instant::now(),
        };
        if self.sweep {
            // The leader is not reaped yet, so the number of its group is still its own.
            process::signal_group(self.pid, process::KILL);
        }
        let mut messages: Vec<String> = Vec::new();
        match self.cause {
            Some(Cause::Ordered(why)) => messages.extend(why.message().map(str::to_owned)),
            Some(Cause::TimedOut) => {
                let seconds = self.job.plan.timeout.unwrap_or_default().as_secs_f64();
                messages.push(format!("it ran longer than {seconds} s"));
            }
            None => {}
        }
        let (exit, unreaped) = if self.life == Life::Hangs {
            messages.push("it did not end after SIGKILL: it hangs in the kernel".to_owned());
            (None, Some(self.child))
        } else {
            let exit = self.child.wait();
            if let Err(error) = &exit {
                messages.push(format!("its exit status is lost: {error}"));
            }
            (exit.ok(), None)
        };
        let status = match self.cause {
            Some(Cause::Ordered(_)) => Status::Cancelled,
            Some(Cause::TimedOut) => Status::TimedOut,
            None if exit.is_some_and(|exit| exit.success()) => Status::Succeeded,
            None => Status::Failed,
        };
        let (stdout_bytes, stdout) = self.stdout.into_last();
        let (stderr_bytes, stderr) = self.stderr.into_last();
        let elapsed = ended.saturating_duration_since(self.started);
        let result = JobResult {
            status,
            exit_code: exit.and_then(|exit| exit.code()),
            signal: exit.and_then(|exit| std::os::unix::process::ExitStatusExt::signal(&exit)),
            started_at: Some(started_at),
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            stdout_bytes,
            stderr_bytes,
            dropped: self.delivery.dropped,
            leaked: self.leaked,
            tail: Tail { stdout, stderr },
            data: None,
            message: (!messages.is_empty()).then(|| messages.join("; ")),
        };
        Outcome { result, unreaped }
    }
}

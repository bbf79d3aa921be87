//! A job that has not ended, in memory.

use super::inbox::Inbox;
use super::lock;
use super::spool::Spool;
use crate::agents::Key;
use crate::agents::named::Named;
use crate::store::{Job, JobState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::watch;
use triton::message::payload;

/// How far the output of a job is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    /// Bytes of the file.
    pub len: u64,
    /// Nothing more comes, and the job's end is stored.
    pub ended: bool,
}

/// A job that has not ended, or has just.
pub struct Live {
    pub(super) job: Mutex<Standing>,
    pub(super) spool: Mutex<Spool>,
    pub(super) written: watch::Sender<Written>,
    /// What its reader waits for, where it has one.
    pub inbox: Inbox,
    /// The content that it names, once that was asked for.
    pub(crate) named: OnceLock<Arc<Named>>,
    /// Somebody is writing its end. Taken under the lock of `job`, so that nothing is sent that has ended.
    ending: AtomicBool,
}

pub(super) struct Standing {
    pub job: Job,
    /// Number of the connection on which it was last sent or asked for; 0 for none.
    connection: u64,
    /// It is new, and was not handed to that connection yet.
    unsent: bool,
    /// There it was asked for.
    asked: bool,
    /// It waits in the store, and a task is about to send it: no other one does.
    claimed: bool,
}

/// What is to be done about a job on a new connection.
#[derive(Debug)]
pub enum Resume {
    /// Nothing: it waits in the store, was seen to already, or its end will come by the journal.
    Wait,
    /// Send it again as it was.
    Send(Job),
    /// Ask where it stands.
    Ask(Job),
}

impl Live {
    /// `connection` is the number of the one on which it is about to be sent, or 0.
    pub(super) fn new(job: Job, connection: u64) -> Self {
        // One that is older than this process has lost its reader.
        let reader = job.kind == payload::FILE_GET && connection != 0;
        Self {
            inbox: Inbox::new(reader),
            named: OnceLock::new(),
            spool: Mutex::new(Spool::new(job.stdout_bytes, job.stderr_bytes)),
            job: Mutex::new(Standing {
                unsent: connection != 0,
                job,
                connection,
                asked: false,
                claimed: false,
            }),
            written: watch::Sender::new(Written::default()),
            ending: AtomicBool::new(false),
        }
    }

    /// The job as it stands.
    pub fn job(&self) -> Job {
        lock(&self.job).job.clone()
    }

    /// Where it stands.
    pub fn state(&self) -> JobState {
        lock(&self.job).job.state
    }

    /// How far its output is written, now and later.
    pub fn written(&self) -> watch::Receiver<Written> {
        self.written.subscribe()
    }

    /// Whether nothing can become of it, because its reader has gone.
    pub fn is_abandoned(&self) -> bool {
        let job = &lock(&self.job).job;
        job.kind == payload::FILE_GET && !self.inbox.is_open()
    }

    /// Whether the agent was asked for it on its last connection, and not sent it.
    pub fn was_asked(&self) -> bool {
        lock(&self.job).asked
    }

    /// Whether it was last sent on this connection and the agent has not said that it has it.
    pub(super) fn is_on_its_way(&self, connection: u64) -> bool {
        let standing = lock(&self.job);
        standing.job.state == JobState::Sent && standing.connection == connection
    }

    /// Whether it was last sent, or asked for, on this connection.
    pub fn was_sent_on(&self, connection: u64) -> bool {
        lock(&self.job).connection == connection
    }

    /// Whether it is to be seen to on this connection, as [`Self::resume`] does it, and was not yet.
    pub(crate) fn is_left_by(&self, connection: u64) -> bool {
        let standing = lock(&self.job);
        matches!(standing.job.state, JobState::Sent | JobState::Accepted)
            && standing.connection != connection
            && !self.ending.load(Ordering::Acquire)
    }

    /// Whose it is.
    pub(crate) fn key(&self) -> Key {
        let standing = lock(&self.job);
        Key {
            identifier: standing.job.identifier.clone(),
            instance: standing.job.instance.clone(),
        }
    }

    pub(super) fn belongs_to(&self, identifier: &str, instance: &str, plain: bool) -> bool {
        let job = &lock(&self.job).job;
        // Plain Tritons are numbered anew at each connection.
        job.identifier == identifier && (plain || job.instance == instance)
    }

    /// Takes the right to end it; false where somebody else has.
    pub(super) fn begin_end(&self) -> bool {
        let _standing = lock(&self.job);
        !self.ending.swap(true, Ordering::AcqRel)
    }

    /// The same for a job that waits in the store, or is about to be sent for the first time.
    pub(super) fn begin_end_unsent(&self) -> bool {
        let standing = lock(&self.job);
        let waits = standing.unsent || standing.job.state == JobState::Queued;
        waits && !self.ending.swap(true, Ordering::AcqRel)
    }

    /// Gives that right back: the end is not stored and will come again.
    pub(super) fn forgo_end(&self) {
        self.ending.store(false, Ordering::Release);
    }

    /// What the protocol says of an open job after a reconnect (`docs/protocol.md` section 4). On one connection
    /// the answer is given once.
    pub fn resume(&self, connection: u64, journal: Option<&str>, now: f64) -> Resume {
        let mut standing = lock(&self.job);
        if standing.connection == connection || self.ending.load(Ordering::Acquire) {
            return Resume::Wait;
        }
        let same = journal.is_some() && journal == standing.job.journal.as_deref();
        match standing.job.state {
            JobState::Queued | JobState::Ended => return Resume::Wait,
            JobState::Sent | JobState::Accepted => {}
        }
        standing.connection = connection;
        standing.unsent = false;
        let job = standing.job.clone();
        let resume = match (same, job.state) {
            (false, _) => Resume::Ask(job),
            // What did not arrive in time is not run later.
            (true, JobState::Sent) if job.expires.is_some_and(|expires| expires <= now) => {
                Resume::Ask(job)
            }
            (true, JobState::Sent) => Resume::Send(job),
            (true, _) => Resume::Wait,
        };
        standing.asked = matches!(resume, Resume::Ask(_));
        resume
    }

    /// Sends a new job by `send`, which does not wait, unless it is on another connection by now. Where that does not
    /// take it, a job that may wait does so, and `undo` is called while nobody can claim it; for another the right to
    /// end it is taken, and the error returned.
    pub(super) fn send_new<E>(
        &self,
        connection: u64,
        send: impl FnOnce(&Job) -> Result<(), E>,
        undo: impl FnOnce(&Job),
    ) -> Result<(), E> {
        let mut standing = lock(&self.job);
        if standing.connection != connection || self.ending.load(Ordering::Acquire) {
            return Ok(());
        }
        standing.unsent = false;
        let Err(e) = send(&standing.job) else {
            return Ok(());
        };
        if standing.job.queue {
            standing.job.state = JobState::Queued;
            standing.job.journal = None;
            undo(&standing.job);
            return Ok(());
        }
        self.ending.store(true, Ordering::Release);
        Err(e)
    }

    /// Claims a queued job for one who is about to send it.
    pub(super) fn claim(&self) -> bool {
        let mut standing = lock(&self.job);
        let free = standing.job.state == JobState::Queued && !standing.claimed;
        standing.claimed |= free;
        free
    }

    /// Ends a claim by `send`, which does not wait; where that does not take the job, `undo` is called while nobody
    /// else can claim it. A job that ended meanwhile is not sent.
    pub(super) fn send_claimed(
        &self,
        connection: u64,
        journal: Option<&str>,
        send: impl FnOnce(&Job) -> bool,
        undo: impl FnOnce(&Job),
    ) -> bool {
        let mut standing = lock(&self.job);
        standing.claimed = false;
        if standing.job.state != JobState::Queued || self.ending.load(Ordering::Acquire) {
            return true;
        }
        if !send(&standing.job) {
            undo(&standing.job);
            return false;
        }
        standing.job.state = JobState::Sent;
        standing.job.journal = journal.map(str::to_owned);
        standing.connection = connection;
        standing.asked = false;
        true
    }

    /// A job that was sent and may wait does so again; `undo` is called while nobody can claim it.
    pub(super) fn queue_again(&self, undo: impl FnOnce(&Job)) -> bool {
        let mut standing = lock(&self.job);
        if !standing.job.queue
            || standing.job.state != JobState::Sent
            || self.ending.load(Ordering::Acquire)
        {
            return false;
        }
        standing.job.state = JobState::Queued;
        standing.job.journal = None;
        undo(&standing.job);
        true
    }
}

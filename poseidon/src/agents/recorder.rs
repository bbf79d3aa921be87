//! Records of one agent on their way into the store, while its session reads on.
//!
//! What waits is taken together, committed in one call, and acknowledged after that.

use super::Key;
use super::connection::Connection;
use crate::cef;
use crate::jobs::{End, Jobs, Live, forgotten};
use crate::server::App;
use crate::store::events::Event;
use crate::store::records::{Batch, Record, Stored};
use crate::store::{Job, Result};
use crate::time::now;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use triton::message::Message;
use triton::message::payload::{self, code};

/// Records of one agent that wait: as many as it may have on their way unacknowledged.
const QUEUE: usize = 256;
/// Bytes of one agent's records that wait.
const SESSION_BYTES: usize = 4 << 20;
/// Bytes of all agents' records that wait; who has more is read no further.
pub const ALL_BYTES: usize = 128 << 20;
/// What a record takes beyond its data.
const OVERHEAD: usize = 512;
/// A store that fails is tried again after these times, in seconds. Then the connection is closed, and the agent
/// sends its records again on the next one.
const RETRIES: [u64; 7] = [1, 2, 4, 8, 15, 15, 15];

/// What a record says of a job of Poseidon's.
pub(super) enum Step {
    Accepted,
    Ended(End),
}

struct Item {
    record: Record,
    job: Option<(Arc<Live>, Step)>,
    /// Given back when the record is stored.
    room: [OwnedSemaphorePermit; 2],
}

/// The way into the store for one session.
pub(super) struct Recorder {
    queue: mpsc::Sender<Box<Item>>,
    room: Arc<Semaphore>,
    task: JoinHandle<()>,
    /// Dropped when nothing more comes.
    open: oneshot::Sender<()>,
}

impl Recorder {
    /// Begins for an agent that has a journal.
    pub fn start(app: &Arc<App>, connection: &Arc<Connection>, key: &Key, address: &str) -> Self {
        let (queue, items) = mpsc::channel(QUEUE);
        let (open, over) = oneshot::channel();
        let keeper = Keeper {
            app: app.clone(),
            connection: connection.clone(),
            key: key.clone(),
            address: address.to_owned(),
            over,
        };
        Self {
            queue,
            room: Arc::new(Semaphore::new(SESSION_BYTES)),
            task: tokio::spawn(keeper.run(items)),
            open,
        }
    }

    /// Takes a record; waits while too many wait already.
    pub async fn push(&self, app: &App, record: Record, job: Option<(Arc<Live>, Step)>) {
        // What the job keeps of its end is about as much again.
        let bytes = (record.data.get().len() + record.token.len()) * 2 + OVERHEAD;
        let bytes = u32::try_from(bytes.min(SESSION_BYTES)).unwrap_or(u32::MAX);
        // Neither is ever closed.
        let Ok(own) = self.room.clone().acquire_many_owned(bytes).await else {
            return;
        };
        let Ok(all) = app.record_room.clone().acquire_many_owned(bytes).await else {
            return;
        };
        let item = Item {
            record,
            job,
            room: [own, all],
        };
        // Where the task has ended the connection is being closed.
        let _ = self.queue.send(Box::new(item)).await;
    }

    /// Nothing more comes; returns when what came is stored, or cannot be.
    pub async fn finish(self) {
        let Self {
            queue, task, open, ..
        } = self;
        drop(queue);
        drop(open);
        if let Err(e) = task.await {
            log::error!("storing records failed: {e}");
        }
    }
}

/// Why a batch is not stored.
enum Unstored {
    /// The agent will send it again.
    Failed,
    /// Its identifier is gone.
    Forgotten,
}

struct Keeper {
    app: Arc<App>,
    connection: Arc<Connection>,
    key: Key,
    address: String,
    over: oneshot::Receiver<()>,
}

impl Keeper {
    async fn run(mut self, mut items: mpsc::Receiver<Box<Item>>) {
        let mut taken = Vec::new();
        while items.recv_many(&mut taken, QUEUE).await > 0 {
            let (mut rooms, mut records, mut steps) = (Vec::new(), Vec::new(), Vec::new());
            for item in taken.drain(..) {
                let Item { record, job, room } = *item;
                rooms.push(room);
                records.push(record);
                steps.extend(job);
            }
            if !self.keep(records, steps).await {
                return;
            }
        }
    }

    /// Stores a batch and says so; false where it cannot be stored.
    async fn keep(&mut self, records: Vec<Record>, steps: Vec<(Arc<Live>, Step)>) -> bool {
        let mut accepted: Vec<Arc<Live>> = Vec::new();
        let mut ended: Vec<(Arc<Live>, Job)> = Vec::new();
        for (live, step) in steps {
            match step {
                Step::Accepted => accepted.push(live),
                // Of two ends the first counts; the record of the second is stored all the same.
                Step::Ended(end) => {
                    if let Some(job) = Jobs::begin_end(&live, end) {
                        ended.push((live, job));
                    }
                }
            }
        }
        let batch = Arc::new(Batch {
            identifier: self.key.identifier.clone(),
            instance: self.key.instance.clone(),
            address: self.address.clone(),
            received: now(),
            events: self.events(&records),
            records,
            accepted: accepted.iter().map(|live| live.job().token).collect(),
            ended: ended.iter().map(|(_, job)| job.clone()).collect(),
        });
        let stored = self.store(&batch).await;
        let jobs = &self.app.jobs;
        let stored = match stored {
            Ok(stored) => stored,
            Err(why) => {
                for (live, _) in &ended {
                    Jobs::not_ended(live);
                    if let Unstored::Forgotten = why {
                        // Who forgot the agent could not end this job, because it was being ended here.
                        jobs.end(live, End::Error(forgotten())).await;
                    }
                }
                return false;
            }
        };
        for live in accepted {
            jobs.set_accepted(&live);
        }
        let relieved = !ended.is_empty();
        for (live, job) in ended {
            jobs.ended_with(&live, &job);
        }
        if relieved {
            self.connection.relieve();
        } else {
            self.connection.room.notify_one();
        }
        self.app
            .registry
            .stored(&self.key, stored.acked, stored.row);
        if let Some(row) = stored.event {
            self.app.cef.stored(row);
        }
        let ack = payload::Ack {
            through: stored.acked,
        };
        let ack = Message::with(payload::ACK, &ack);
        self.connection.send_waiting(&ack).await;
        true
    }

    /// What the events among the records say. They are read here, and not in the store's thread.
    fn events(&self, records: &[Record]) -> HashMap<u64, Event> {
        let mut events = records.iter().filter(|r| r.code == code::EVENT).peekable();
        if events.peek().is_none() {
            return HashMap::new();
        }
        let name = self.app.registry.name(&self.key.identifier);
        let read = |record: &Record| (record.id, cef::event(record, &name));
        events.map(read).collect()
    }

    async fn store(&mut self, batch: &Arc<Batch>) -> std::result::Result<Stored, Unstored> {
        let name = || {
            format!(
                "{}/{}",
                self.app.registry.name(&self.key.identifier),
                self.key.instance
            )
        };
        for (attempt, wait) in RETRIES.into_iter().map(Some).chain([None]).enumerate() {
            let e = match self.call(batch).await {
                Ok(Some(stored)) => {
                    if attempt > 0 {
                        log::info!("the records of {} are stored now", name());
                    }
                    return Ok(stored);
                }
                Ok(None) => {
                    self.connection.close("forgotten");
                    return Err(Unstored::Forgotten);
                }
                Err(e) => e,
            };
            if attempt == 0 {
                log::error!(
                    "{} records of {} are not stored yet, and not acknowledged: {e}",
                    batch.records.len(),
                    name()
                );
            }
            let Some(wait) = wait else { break };
            // When the connection is gone nobody waits for it: the agent sends them again.
            let wait = tokio::time::timeout(Duration::from_secs(wait), &mut self.over);
            if wait.await.is_ok() {
                return Err(Unstored::Failed);
            }
        }
        self.connection.close("the store failed");
        Err(Unstored::Failed)
    }

    async fn call(&self, batch: &Arc<Batch>) -> Result<Option<Stored>> {
        let batch = batch.clone();
        self.app
            .db
            .call(move |store| store.store_records(&batch))
            .await
    }
}

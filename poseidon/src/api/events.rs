//! The fleet as it changes.

use super::{Answer, Shared, ndjson};
use crate::agents::PendingView;
use crate::batches::BatchView;
use crate::events::{BACKLOG, Change};
use crate::jobs::JobView;
use crate::jobs::output::KEEP_ALIVE;
use crate::server::{App, stopped};
use axum::body::Bytes;
use axum::extract::State;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;
use tokio::time::timeout;

/// One line.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Line<'a> {
    Fleet {
        agents: Vec<Box<RawValue>>,
        pending: Vec<PendingView>,
    },
    Agent {
        agent: &'a RawValue,
    },
    AgentRemoved {
        name: Option<&'a str>,
        instance: &'a str,
    },
    Pending {
        pending: Vec<PendingView>,
    },
    Job {
        job: JobView<'a>,
    },
    Batch {
        batch: BatchView<'a>,
    },
    History {
        agent: &'a str,
        instance: &'a str,
        row: u64,
    },
    Scripts {
        name: &'a str,
        revision: &'a str,
    },
    Schedule {
        name: &'a str,
    },
}

impl Line<'_> {
    fn bytes(&self) -> Option<Bytes> {
        let mut line = serde_json::to_vec(self).ok()?;
        line.push(b'\n');
        Some(line.into())
    }
}

struct Watcher {
    app: Arc<App>,
    changes: Receiver<Change>,
    /// Heard and not yet said.
    due: VecDeque<Change>,
    stop: watch::Receiver<bool>,
    /// The whole fleet is due: at the beginning, and after falling behind.
    whole: bool,
}

pub(super) async fn stream(State(app): Shared) -> Answer {
    let watcher = Watcher {
        changes: app.events.subscribe(),
        due: VecDeque::new(),
        stop: app.stop.clone(),
        app,
        whole: true,
    };
    Ok(ndjson(futures_util::stream::unfold(
        watcher,
        |mut watcher| async move { watcher.next().await.map(|line| (Ok(line), watcher)) },
    )))
}

impl Watcher {
    fn fleet(&mut self) -> Option<Bytes> {
        // What changes from here on is said again, which does no harm.
        self.changes = self.changes.resubscribe();
        self.due.clear();
        let registry = &self.app.registry;
        let fleet = Line::Fleet {
            agents: registry.agents_json(None),
            pending: registry.pending(),
        };
        fleet.bytes()
    }

    async fn next(&mut self) -> Option<Bytes> {
        while !*self.stop.borrow() {
            if std::mem::take(&mut self.whole) {
                return self.fleet();
            }
            if let Some(change) = self.due.pop_front() {
                match self.line(&change).await {
                    Some(line) => return Some(line),
                    // It is no more; another change says that.
                    None => continue,
                }
            }
            tokio::select! {
                change = timeout(KEEP_ALIVE, self.changes.recv()) => match change {
                    Ok(Ok(change)) => self.gather(change),
                    Ok(Err(RecvError::Lagged(_))) => self.whole = true,
                    Ok(Err(RecvError::Closed)) => return None,
                    Err(_) => return Some(Bytes::from_static(b"\n")),
                },
                () = stopped(&mut self.stop) => return None,
            }
        }
        None
    }

    /// Takes all that has changed since the last line.
    fn gather(&mut self, first: Change) {
        let mut heard = vec![first];
        while heard.len() < BACKLOG {
            match self.changes.try_recv() {
                Ok(change) => heard.push(change),
                Err(TryRecvError::Lagged(_)) => {
                    self.whole = true;
                    return;
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.due = merged(heard);
    }

    /// A change as it stands now.
    async fn line(&self, change: &Change) -> Option<Bytes> {
        match change {
            Change::Agent(key) => {
                let agents = self
                    .app
                    .registry
                    .agents_json(Some(std::slice::from_ref(key)));
                let agent = agents.first()?;
                Line::Agent { agent }.bytes()
            }
            Change::Removed { key, name } => {
                let (name, instance) = (name.as_deref(), &key.instance);
                Line::AgentRemoved { name, instance }.bytes()
            }
            Change::Pending => {
                let pending = self.app.registry.pending();
                Line::Pending { pending }.bytes()
            }
            Change::Batch(id) => {
                let batch = match self.app.batches.get(id).await {
                    Ok(batch) => batch?,
                    Err(e) => {
                        log::error!("a watcher is not told of batch {id}: {e}");
                        return None;
                    }
                };
                let batch = batch.view(false);
                Line::Batch { batch }.bytes()
            }
            Change::History(key) => {
                let (agent, row) = self.app.registry.history(key)?;
                let (agent, instance) = (agent.as_str(), key.instance.as_str());
                Line::History {
                    agent,
                    instance,
                    row,
                }
                .bytes()
            }
            Change::Scripts(identifier) => {
                let found = self.app.repositories.current_id(identifier).await;
                let revision = match found {
                    Ok(revision) => revision?,
                    Err(e) => {
                        log::error!("a watcher is not told of a new revision: {e}");
                        return None;
                    }
                };
                let (name, _) = self.app.registry.settings(identifier)?;
                let (name, revision) = (name.as_str(), revision.as_str());
                Line::Scripts { name, revision }.bytes()
            }
            Change::Schedule(identifier) => {
                let (name, _) = self.app.registry.settings(identifier)?;
                let name = name.as_str();
                Line::Schedule { name }.bytes()
            }
            Change::Job(token) => {
                let job = match self.app.jobs.get(token).await {
                    Ok(job) => job?,
                    Err(e) => {
                        log::error!("a watcher is not told of job {token}: {e}");
                        return None;
                    }
                };
                let job = JobView::from(&job);
                Line::Job { job }.bytes()
            }
        }
    }
}

/// Each change once, in the place of its last time: what came before is said by it as well.
fn merged(heard: Vec<Change>) -> VecDeque<Change> {
    let mut seen = HashSet::new();
    let mut due = VecDeque::new();
    for change in heard.into_iter().rev() {
        if seen.insert(change.clone()) {
            due.push_front(change);
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::Key;

    #[test]
    fn repeats_are_merged_into_the_last() {
        let key = Key {
            identifier: "hash".to_owned(),
            instance: "i1".to_owned(),
        };
        let agent = || Change::Agent(key.clone());
        let removed = || Change::Removed {
            key: key.clone(),
            name: None,
        };
        let heard = vec![agent(), Change::Pending, agent(), removed(), agent()];
        assert_eq!(merged(heard), [Change::Pending, removed(), agent()]);
        let heard = vec![removed(), agent(), agent(), removed()];
        assert_eq!(merged(heard), [agent(), removed()]);
    }
}

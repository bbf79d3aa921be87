//! The fleet as it changes.

use super::batches::sees;
use super::door::Who;
use super::{Answer, Shared, ndjson};
use crate::agents::{Key, PendingView};
use crate::batches::BatchView;
use crate::doors::Role;
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
    who: Who,
    /// What was told to who does not see all: of what leaves their view they are told.
    shown: HashSet<Key>,
    /// The whole fleet is due: at the beginning, and after falling behind.
    whole: bool,
}

pub(super) async fn stream(State(app): Shared, who: Who) -> Answer {
    let watcher = Watcher {
        changes: app.events.subscribe(),
        due: VecDeque::new(),
        stop: app.stop.clone(),
        app,
        who,
        shown: HashSet::new(),
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
        let keys = registry.scope_keys(self.who.scope());
        let fleet = Line::Fleet {
            agents: registry.agents_json(keys.as_deref()),
            pending: self.pending(),
        };
        let line = fleet.bytes();
        self.shown = keys.unwrap_or_default().into_iter().collect();
        line
    }

    /// Those that wait, for who may let them in.
    fn pending(&self) -> Vec<PendingView> {
        if self.who.role < Role::Admin {
            return Vec::new();
        }
        self.app.registry.pending()
    }

    /// Whether a device is within the view; one that is not any more is taken out of it by the line.
    fn look(&mut self, key: &Key) -> Result<(), Option<Bytes>> {
        let sees = self.who.sees(&self.app.registry, key);
        if self.who.scope().is_all() {
            return Ok(());
        }
        if sees {
            self.shown.insert(key.clone());
            return Ok(());
        }
        let was_shown = self.shown.remove(key);
        let name = self.app.registry.name(&key.identifier);
        let (name, instance) = (Some(name.as_str()), key.instance.as_str());
        let removed = || Line::AgentRemoved { name, instance }.bytes();
        Err(was_shown.then(removed).flatten())
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
    async fn line(&mut self, change: &Change) -> Option<Bytes> {
        match change {
            Change::Agent(key) => {
                if let Err(removed) = self.look(key) {
                    return removed;
                }
                let agents = self
                    .app
                    .registry
                    .agents_json(Some(std::slice::from_ref(key)));
                let agent = agents.first()?;
                Line::Agent { agent }.bytes()
            }
            Change::Removed { key, name } => {
                if !self.who.scope().is_all() && !self.shown.remove(key) {
                    return None;
                }
                let (name, instance) = (name.as_deref(), &key.instance);
                Line::AgentRemoved { name, instance }.bytes()
            }
            Change::Pending if self.who.role < Role::Admin => None,
            Change::Pending => {
                let pending = self.pending();
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
                if !sees(&self.app, &self.who, &batch) {
                    return None;
                }
                let batch = batch.view(false).told(self.who.is_viewer());
                Line::Batch { batch }.bytes()
            }
            Change::History(key) if !self.who.sees(&self.app.registry, key) => None,
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
            Change::Scripts(identifier)
                if !self.who.sees_identifier(&self.app.registry, identifier) =>
            {
                None
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
            Change::Schedule(identifier)
                if !self.who.sees_identifier(&self.app.registry, identifier) =>
            {
                None
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
                if !self.who.sees(&self.app.registry, &job.key()) {
                    return None;
                }
                let job = JobView::from(&job).told(self.who.is_viewer());
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

//! What happens in the fleet, for all who watch.

use crate::agents::Key;
use tokio::sync::broadcast;

/// A watcher may fall behind by so many changes before it gets the whole fleet again.
pub(crate) const BACKLOG: usize = 1024;

/// What has changed, and not how: each watcher looks that up when it can say it. So what waits for a slow one is
/// small, whatever the agents send.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// An agent came, went or reported.
    Agent(Key),
    /// An agent was forgotten.
    Removed {
        /// Which.
        key: Key,
        /// What it was called.
        name: Option<String>,
    },
    /// The identifiers that wait.
    Pending,
    /// The job with this token.
    Job(String),
    /// The batch with this id.
    Batch(String),
    /// Records of an agent came.
    History(Key),
    /// The scripts of the identifier with this hash.
    Scripts(String),
    /// The schedule of the identifier with this hash, or what its devices have of it.
    Schedule(String),
}

/// The place where changes are said and heard.
#[derive(Clone)]
pub struct Events {
    changes: broadcast::Sender<Change>,
    /// Apart from all else, so that who brings it to the devices is not outrun by heartbeats.
    content: broadcast::Sender<String>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            changes: broadcast::channel(BACKLOG).0,
            content: broadcast::channel(BACKLOG).0,
        }
    }
}

impl Events {
    /// Says what has changed.
    pub fn publish(&self, change: impl FnOnce() -> Change) {
        if self.changes.receiver_count() > 0 {
            let _ = self.changes.send(change());
        }
    }

    /// Says that the devices of an identifier should have something else, which `change` says to watchers.
    pub fn publish_content(&self, identifier: &str, change: impl FnOnce(String) -> Change) {
        let _ = self.content.send(identifier.to_owned());
        self.publish(|| change(identifier.to_owned()));
    }

    /// The hash of each identifier whose devices should have something else, from now on. Who falls behind has to look
    /// at all.
    pub fn subscribe_content(&self) -> broadcast::Receiver<String> {
        self.content.subscribe()
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}

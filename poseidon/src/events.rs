//! What happens in the fleet, for all who watch.

use serde::Serialize;
use std::sync::Arc;
use tokio::sync::broadcast;

/// A watcher may fall behind by so many lines before it gets the whole fleet again.
const BACKLOG: usize = 1024;

/// A line: what kind of change, and what has changed as a field of its own name.
pub(crate) fn line<T: Serialize>(kind: &'static str, field: &'static str, value: &T) -> String {
    // Not by way of a JSON value: that would parse all that is already JSON.
    let value = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    format!(r#"{{"type":"{kind}","{field}":{value}}}"#)
}

/// The place where changes are said and heard: one JSON object a line.
#[derive(Clone)]
pub struct Events(broadcast::Sender<Arc<str>>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }
}

impl Events {
    /// Says a line, which is only made where somebody listens.
    pub fn publish(&self, line: impl FnOnce() -> String) {
        if self.0.receiver_count() > 0 {
            let _ = self.0.send(line().into());
        }
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.0.subscribe()
    }
}

//! The fleet as it changes.

use super::{Answer, Shared, ndjson};
use crate::agents::PendingView;
use crate::jobs::output::KEEP_ALIVE;
use crate::server::{App, stopped};
use axum::body::Bytes;
use axum::extract::State;
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::timeout;

#[derive(Serialize)]
struct Fleet {
    #[serde(rename = "type")]
    kind: &'static str,
    agents: Vec<Box<RawValue>>,
    pending: Vec<PendingView>,
}

struct Watcher {
    app: Arc<App>,
    changes: Receiver<Arc<str>>,
    stop: watch::Receiver<bool>,
    /// The whole fleet is due: at the beginning, and after falling behind.
    whole: bool,
}

pub(super) async fn stream(State(app): Shared) -> Answer {
    let watcher = Watcher {
        changes: app.events.subscribe(),
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
        let registry = &self.app.registry;
        let fleet = Fleet {
            kind: "fleet",
            agents: registry.agents_json(None),
            pending: registry.pending(),
        };
        let mut line = serde_json::to_vec(&fleet).ok()?;
        line.push(b'\n');
        Some(line.into())
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.whole {
            self.whole = false;
            return self.fleet();
        }
        tokio::select! {
            change = timeout(KEEP_ALIVE, self.changes.recv()) => match change {
                Ok(Ok(line)) => Some(Bytes::from(format!("{line}\n"))),
                Ok(Err(RecvError::Lagged(_))) => {
                    self.fleet()
                }
                Ok(Err(RecvError::Closed)) => None,
                Err(_) => Some(Bytes::from_static(b"\n")),
            },
            () = stopped(&mut self.stop) => None,
        }
    }
}

//! What the connection does, for `triton status`, the log and the heartbeat.

use crate::sys::clock;
use crate::sys::wake::Wake;
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The states of the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No URL is configured.
    #[default]
    Off,
    /// An attempt is under way.
    Connecting,
    /// The last attempt failed; the next one comes.
    Waiting,
    /// Connected.
    Connected,
}

/// A snapshot.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Snapshot {
    pub state: State,
    /// Since when, Unix time.
    pub since: f64,
    pub urls: Vec<String>,
    /// The URL that is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What Poseidon calls this device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// A server that knows only the first Triton's format.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub plain: bool,
    /// The server has said welcome since the agent's start.
    #[serde(skip)]
    pub welcomed: bool,
    pub heartbeat_seconds: u64,
    pub reconnects: u64,
    /// Why the last attempt or connection ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When the next attempt is due, Unix time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<f64>,
}

/// Shared between the thread `link` and who asks.
#[derive(Debug, Default)]
pub struct LinkStatus {
    snapshot: Mutex<Snapshot>,
    /// Rung when another state is entered, where somebody wants to know.
    bell: Option<Wake>,
}

impl LinkStatus {
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that rings `bell`, if any, when another state is entered.
    pub fn with_bell(bell: Option<Wake>) -> Self {
        Self {
            snapshot: Mutex::default(),
            bell,
        }
    }

    /// Readable after another state was entered, until [`LinkStatus::seen`].
    pub fn changed(&self) -> Option<BorrowedFd<'_>> {
        self.bell.as_ref().map(Wake::as_fd)
    }

    /// Silences the bell; call it before [`LinkStatus::get`].
    pub fn seen(&self) {
        if let Some(bell) = &self.bell {
            bell.clear();
        }
    }

    /// How it is now.
    pub fn get(&self) -> Snapshot {
        self.lock().clone()
    }

    /// Connections after the first.
    pub fn reconnects(&self) -> u64 {
        self.lock().reconnects
    }

    /// Enters `state` and changes what else is known.
    pub fn enter(&self, state: State, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = self.lock();
        let changed = snapshot.state != state;
        if changed {
            snapshot.state = state;
            snapshot.since = clock::now();
        }
        if state != State::Waiting {
            snapshot.next_attempt = None;
        }
        if state != State::Connected {
            snapshot.url = None;
            snapshot.plain = false;
        }
        change(&mut snapshot);
        drop(snapshot);
        if let Some(bell) = self.bell.as_ref().filter(|_| changed) {
            bell.ring();
        }
    }

    /// Changes what is known, in the same state.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.lock());
    }
}

//! Brings agents what is kept for their identifier: scripts. An agent gets it when it comes with something else, and when
//! it changes.
//!
//! It is done by jobs as any other, so that what became of it is seen where all is seen. One task for each agent that
//! has something to get, which ends when it has it, is gone, or could not take it several times.

use super::order::{self, Order, OrderError};
use super::registry::Target;
use super::{Key, connection::Connection};
use crate::jobs::{Live, lock};
use crate::server::App;
use crate::store::{JobState, StoreError};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use triton::message::payload::{self, ErrorCode};

/// Tries for one agent and what it should have; after the last one its next coming or the next change counts.
const TRIES: u32 = 5;
/// Pause after the first failed try; it doubles…
const PAUSE: Duration = Duration::from_secs(10);
/// …up to this.
const MAX_PAUSE: Duration = Duration::from_mins(5);

/// What `hello` tells of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Has {
    capabilities: Vec<String>,
    scripts: Scripts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Scripts {
    revision: Option<String>,
}

/// Looks after the agents of identifiers whose repository changes. Ends with the server.
pub async fn watch(app: Arc<App>) {
    let mut changes = app.repositories.subscribe();
    loop {
        let identifier = match changes.recv().await {
            Ok(identifier) => Some(identifier),
            // Too many at once to be told each.
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => return,
        };
        for key in app.registry.up(identifier.as_deref()) {
            start(&app, &key);
        }
    }
}

/// Sees to one agent that is up.
pub fn start(app: &Arc<App>, key: &Key) {
    let Some((connection, _)) = app.registry.connection(key) else {
        // It is seen to when it comes.
        return;
    };
    if connection.provisioning.swap(true, Ordering::AcqRel) {
        // Its task looks once more before it ends.
        return;
    }
    let (app, key) = (app.clone(), key.clone());
    tokio::spawn(async move {
        loop {
            bring(&app, &key, &connection).await;
            connection.provisioning.store(false, Ordering::Release);
            // A change may have come while it ended.
            if !matches!(wanted(&app, &key, &connection).await, Ok(Some(_)))
                || connection.provisioning.swap(true, Ordering::AcqRel)
            {
                return;
            }
        }
    });
}

/// What an agent should have and has not.
struct Wanted {
    target: Target,
    revision: String,
    request: Arc<RawValue>,
}

/// None where it has what it should have, or this is not its connection any more.
async fn wanted(
    app: &App,
    key: &Key,
    connection: &Arc<Connection>,
) -> Result<Option<Wanted>, StoreError> {
    let Some((current, journal)) = app.registry.connection(key) else {
        return Ok(None);
    };
    let hello = app
        .registry
        .hello(key)
        .filter(|_| current.id == connection.id);
    let Some(hello) = hello else {
        return Ok(None);
    };
    let has: Has = serde_json::from_str(hello.get()).unwrap_or_default();
    if !has.capabilities.iter().any(|c| c == payload::SCRIPTS_SYNC) {
        return Ok(None);
    }
    let brought = lock(&connection.scripts).clone();
    let has = brought.or(has.scripts.revision);
    // Most have it, and a whole fleet may come at once: the files are only looked up for those that have not.
    let revision = app.repositories.current_id(&key.identifier).await?;
    if revision.is_none() || revision == has {
        return Ok(None);
    }
    let Some(manifest) = app.repositories.current(&key.identifier).await? else {
        return Ok(None);
    };
    let request = serde_json::value::to_raw_value(&manifest)
        .map_err(|e| StoreError::Failed(e.to_string()))?;
    Ok(Some(Wanted {
        target: Target {
            key: key.clone(),
            name: app.registry.name(&key.identifier),
            connection: Some(connection.clone()),
            journal,
        },
        request: request.into(),
        revision: manifest.revision,
    }))
}

/// A job that brings it scripts already: from an earlier connection, or from before a restart.
fn under_way(app: &App, key: &Key) -> Option<Arc<Live>> {
    let open = app
        .jobs
        .all_open_of(&key.identifier, Some(&key.instance))
        .into_iter();
    // One whose end is not stored yet is among them.
    open.rev().find(|live| {
        let job = live.job();
        job.kind == payload::SCRIPTS_SYNC && job.state != JobState::Ended
    })
}

/// Why an agent did not take its scripts.
struct Failure {
    /// Somebody had too much to do, which says nothing of the scripts.
    busy: bool,
    reason: String,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self {
            busy: false,
            reason,
        }
    }
}

/// Brings an agent what it should have, until it has it.
async fn bring(app: &Arc<App>, key: &Key, connection: &Arc<Connection>) {
    let (mut tries, mut pause) = (0, PAUSE);
    loop {
        let (revision, result) = match wanted(app, key, connection).await {
            Ok(None) => return,
            Ok(Some(wanted)) => {
                if let Some(live) = under_way(app, key) {
                    if outcome(&live).await.is_ok() {
                        *lock(&connection.scripts) = revision_of(&live);
                    }
                    continue;
                }
                let result = bring_once(app, &wanted).await;
                (Some(wanted.revision), result)
            }
            Err(e) => (None, Err(e.to_string().into())),
        };
        let Err(Failure { busy, reason }) = result else {
            *lock(&connection.scripts) = revision;
            (tries, pause) = (0, PAUSE);
            continue;
        };
        let name = app.registry.name(&key.identifier);
        log::warn!(
            "{name} did not get its scripts, revision {}: {reason}",
            revision.as_deref().unwrap_or("unknown")
        );
        tries += u32::from(!busy);
        if tries >= TRIES {
            log::error!(
                "{name} is not given its scripts again before it comes anew or they change"
            );
            if revision.is_some() {
                *lock(&connection.scripts) = revision;
            }
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// The revision that a job brings.
fn revision_of(live: &Live) -> Option<String> {
    let brings: Scripts = serde_json::from_str(live.job().request.get()).unwrap_or_default();
    brings.revision
}

async fn bring_once(app: &Arc<App>, wanted: &Wanted) -> Result<(), Failure> {
    let order = Order {
        kind: payload::SCRIPTS_SYNC.to_owned(),
        request: wanted.request.clone(),
        expires: None,
    };
    let given = order::give(app, &order, std::slice::from_ref(&wanted.target)).await;
    let live = given.map_err(|e| Failure {
        busy: matches!(e, OrderError::Busy),
        reason: match e {
            OrderError::Invalid(reason) => reason,
            OrderError::TooLarge(size) => {
                format!("its list of files makes a message of {size} bytes")
            }
            OrderError::Busy => "too many jobs are open".to_owned(),
            OrderError::Store(e) => e.to_string(),
        },
    })?;
    let Some(live) = live.first() else {
        return Err("no job was made".to_owned().into());
    };
    outcome(live).await
}

/// Waits for a job's end; why it did not succeed.
async fn outcome(live: &Live) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Ended {
        status: payload::Status,
        message: Option<String>,
    }
    let mut written = live.written();
    // The sender lives as long as the job does.
    let _ = written.wait_for(|written| written.ended).await;
    let job = live.job();
    if let Some(error) = &job.error {
        let error: payload::Error = serde_json::from_str(error.get()).map_err(|e| e.to_string())?;
        return Err(Failure {
            busy: error.code == ErrorCode::Busy,
            reason: format!("{}: {}", error.code, error.message),
        });
    }
    let result = job.result.as_ref().map_or("null", |result| result.get());
    match serde_json::from_str::<Ended>(result) {
        Ok(ended) if ended.status == payload::Status::Succeeded => Ok(()),
        Ok(ended) => {
            let message = ended.message.unwrap_or_default();
            Err(format!("{:?} {message}", ended.status).into())
        }
        Err(e) => Err(format!("its result cannot be read: {e}").into()),
    }
}

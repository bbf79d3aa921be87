//! Brings agents what is kept for their identifier: scripts and schedules. An agent gets it when it comes with something
//! else, and when it changes.
//!
//! Scripts are brought by jobs as any other, so that what became of it is seen where all is seen; a schedule is no job: it
//! is answered at once, and may be sent again. One task for each agent and each of the two that it has to get, which ends
//! when it has it, is gone, or could not take it several times.

use super::ask::{AskError, ask};
use super::order::{self, Order, OrderError};
use super::registry::Target;
use super::{Key, connection::Connection};
use crate::events::Change;
use crate::jobs::{Live, lock};
use crate::schedules;
use crate::server::{App, stopped};
use crate::store::{JobState, StoreError};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use triton::message::payload::{self, ErrorCode};
use triton::message::{Message, VERSION, id};

/// Tries for one agent and what it should have; after the last one its next coming or the next change counts.
const TRIES: u32 = 5;
/// Pause after the first failed try; it doubles…
const PAUSE: Duration = Duration::from_secs(10);
/// …up to this.
const MAX_PAUSE: Duration = Duration::from_mins(5);

/// What is brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Scripts,
    Schedule,
}

impl What {
    /// A job that brings it already: from an earlier connection, or from before a restart.
    fn under_way(self, app: &App, key: &Key) -> Option<Arc<Live>> {
        if self != Self::Scripts {
            return None;
        }
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

    fn capability(self) -> &'static str {
        match self {
            Self::Scripts => payload::SCRIPTS_SYNC,
            Self::Schedule => payload::SCHEDULE_SET,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Scripts => "scripts",
            Self::Schedule => "schedule",
        }
    }

    fn brought(self, connection: &Connection) -> &Brought {
        match self {
            Self::Scripts => &connection.scripts,
            Self::Schedule => &connection.schedule,
        }
    }
}

/// How far one of the two was brought on a connection.
#[derive(Default)]
pub(super) struct Brought {
    /// A task is at it.
    running: AtomicBool,
    /// Rung when that should look again.
    news: Notify,
    state: Mutex<State>,
}

impl Brought {
    /// Something has changed, or the connection is over: a task that pauses pauses no more.
    pub(super) fn look_again(&self) {
        self.news.notify_one();
    }
}

#[derive(Default, Clone)]
struct State {
    /// The revision that was brought; before that the `hello` counts.
    has: Option<String>,
    /// One that it did not take several times.
    given_up: Option<String>,
    /// Why the last try failed, and the revision that was tried.
    problem: Option<(Option<String>, String)>,
}

/// What an agent that is up has of its schedule.
pub struct Standing {
    /// The revision that it has; empty where nothing was ever set, `None` where it knows no schedules.
    pub revision: Option<String>,
    /// Why it did not take the last one that was brought, and which that was, where it is known.
    problem: Option<(Option<String>, String)>,
}

impl Standing {
    /// Why it did not take this revision.
    pub fn problem(self, wanted: Option<&str>) -> Option<String> {
        let (of, reason) = self.problem?;
        (of.is_none() || of.as_deref() == wanted).then_some(reason)
    }
}

/// What `hello` tells of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Has {
    capabilities: Vec<String>,
    scripts: Kept,
    schedule: Kept,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kept {
    revision: Option<String>,
}

impl Has {
    /// The revision of one of the two; `None` where the agent cannot take it.
    fn of(self, what: What) -> Option<String> {
        let knows = self.capabilities.iter().any(|c| c == what.capability());
        let has = match what {
            What::Scripts => self.scripts,
            What::Schedule => self.schedule,
        };
        knows.then(|| has.revision.unwrap_or_default())
    }
}

/// Looks after the agents of identifiers whose scripts or schedule change. Ends with the server.
pub async fn watch(app: Arc<App>) {
    let mut content = app.events.subscribe_content();
    let mut stop = app.stop.clone();
    loop {
        let changed = tokio::select! {
            changed = content.recv() => changed,
            () = stopped(&mut stop) => return,
        };
        let identifier = match changed {
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
    for what in [What::Scripts, What::Schedule] {
        let running = move |connection: &Connection| {
            let running = &what.brought(connection).running;
            running.swap(true, Ordering::AcqRel)
        };
        if running(&connection) {
            // Its task looks once more before it ends.
            what.brought(&connection).look_again();
            continue;
        }
        let (app, key, connection) = (app.clone(), key.clone(), connection.clone());
        // Looked for now: its end may be the next thing that the agent says.
        let mut open = what.under_way(&app, &key);
        tokio::spawn(async move {
            loop {
                bring(&app, &key, &connection, what, open.take()).await;
                let brought = what.brought(&connection);
                brought.running.store(false, Ordering::Release);
                // A change may have come while it ended.
                if !matches!(wanted(&app, &key, &connection, what).await, Ok(Some(_)))
                    || running(&connection)
                {
                    return;
                }
            }
        });
    }
}

/// What an agent has of its schedule; `None` where it is down.
pub fn schedule(app: &App, key: &Key) -> Option<Standing> {
    let (connection, _) = app.registry.connection(key)?;
    let state = lock(&connection.schedule.state).clone();
    let told = hello(app, key).of(What::Schedule);
    Some(Standing {
        revision: told.map(|told| state.has.unwrap_or(told)),
        problem: state.problem,
    })
}

fn hello(app: &App, key: &Key) -> Has {
    let hello = app.registry.hello(key);
    hello
        .and_then(|hello| serde_json::from_str(hello.get()).ok())
        .unwrap_or_default()
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
    what: What,
) -> Result<Option<Wanted>, StoreError> {
    let Some((current, journal)) = app.registry.connection(key) else {
        return Ok(None);
    };
    if current.id != connection.id {
        return Ok(None);
    }
    let Some(told) = hello(app, key).of(what) else {
        return Ok(None);
    };
    let state = lock(&what.brought(connection).state).clone();
    let has = state.has.unwrap_or(told);
    // Most have it, and a whole fleet may come at once: the content is only looked up for those that have not.
    let revision = match what {
        What::Scripts => app.repositories.current_id(&key.identifier).await?,
        What::Schedule => app.schedules.revision(&key.identifier).await?,
    };
    if revision.is_none() || revision.as_ref() == Some(&has) || revision == state.given_up {
        return Ok(None);
    }
    let found = match what {
        What::Scripts => {
            let manifest = app.repositories.current(&key.identifier).await?;
            manifest.map(|m| (serde_json::value::to_raw_value(&m), m.revision))
        }
        What::Schedule => {
            let schedule = app.schedules.get(&key.identifier).await?;
            schedule.map(|s| (schedules::request(&s), s.revision))
        }
    };
    let Some((request, revision)) = found else {
        return Ok(None);
    };
    Ok(Some(Wanted {
        target: Target {
            key: key.clone(),
            name: app.registry.name(&key.identifier),
            connection: Some(connection.clone()),
            journal,
        },
        request: request
            .map_err(|e| StoreError::Failed(e.to_string()))?
            .into(),
        revision,
    }))
}

/// Why an agent did not take what it was brought.
struct Failure {
    /// Somebody had too much to do, or the store failed, which says nothing of what was brought.
    busy: bool,
    /// The same again would be refused again.
    lasts: bool,
    reason: String,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self {
            busy: false,
            lasts: false,
            reason,
        }
    }
}

/// Whether the same would be refused again: by the device's policy, say.
fn lasts(code: &ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Invalid
            | ErrorCode::TooLarge
            | ErrorCode::Refused
            | ErrorCode::Untrusted
            | ErrorCode::UnknownType
    )
}

/// Brings an agent what it should have, until it has it.
///
/// `open` is a job that brings it already.
async fn bring(
    app: &Arc<App>,
    key: &Key,
    connection: &Arc<Connection>,
    what: What,
    mut open: Option<Arc<Live>>,
) {
    let (mut tries, mut pause) = (0, PAUSE);
    let state = &what.brought(connection).state;
    let tell = || {
        if what == What::Schedule {
            app.events
                .publish(|| Change::Schedule(key.identifier.clone()));
        }
    };
    loop {
        // Before it is asked what is wanted: one that ends meanwhile has to count.
        let open = open.take().or_else(|| what.under_way(app, key));
        let (revision, result) = match wanted(app, key, connection, what).await {
            Ok(None) => return,
            Ok(Some(wanted)) => {
                if let Some(live) = open {
                    if outcome(&live).await.is_ok() {
                        lock(state).has = revision_of(&live);
                    }
                    continue;
                }
                let result = match what {
                    What::Scripts => bring_scripts(app, &wanted).await,
                    What::Schedule => bring_schedule(connection, &wanted).await,
                };
                (Some(wanted.revision), result)
            }
            Err(e) => {
                let failure = Failure::from(e.to_string());
                let busy = true;
                (None, Err(Failure { busy, ..failure }))
            }
        };
        let Err(Failure {
            busy,
            lasts,
            reason,
        }) = result
        else {
            *lock(state) = State {
                has: revision,
                ..State::default()
            };
            tell();
            (tries, pause) = (0, PAUSE);
            continue;
        };
        let (name, word) = (app.registry.name(&key.identifier), what.word());
        log::warn!(
            "{name} did not get its {word}, revision {}: {}",
            revision.as_deref().unwrap_or("unknown"),
            reason.escape_debug()
        );
        lock(state).problem = Some((revision.clone(), reason));
        tries += u32::from(!busy);
        let over = lasts || tries >= TRIES;
        if over && revision.is_some() {
            lock(state).given_up = revision;
        }
        tell();
        if over {
            log::error!(
                "{name} is not given its {word} again before it comes anew or that changes"
            );
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
            () = what.brought(connection).news.notified() => (tries, pause) = (0, PAUSE),
        }
    }
}

/// No job: see `docs/protocol.md` section 6.
async fn bring_schedule(connection: &Connection, wanted: &Wanted) -> Result<(), Failure> {
    let id = id::random();
    let request = Message {
        kind: payload::SCHEDULE_SET.to_owned(),
        version: VERSION,
        conversation_id: id.clone(),
        id,
        payload: Some(wanted.request.get().to_owned()),
        signature: None,
    };
    match ask(connection, &request, payload::RESULT).await {
        Ok(_) => {
            let (name, revision) = (&wanted.target.name, &wanted.revision);
            log::info!("{name} has its schedule, revision {revision}");
            Ok(())
        }
        Err(e) => Err(Failure {
            busy: match &e {
                AskError::Busy => true,
                AskError::Refused(error) => error.code == ErrorCode::Busy,
                _ => false,
            },
            lasts: match &e {
                AskError::Refused(error) => lasts(&error.code),
                AskError::TooLarge(_) => true,
                _ => false,
            },
            reason: e.to_string(),
        }),
    }
}

/// The revision that a job brings.
fn revision_of(live: &Live) -> Option<String> {
    let brings: Kept = serde_json::from_str(live.job().request.get()).unwrap_or_default();
    brings.revision
}

async fn bring_scripts(app: &Arc<App>, wanted: &Wanted) -> Result<(), Failure> {
    let order = Order {
        kind: payload::SCRIPTS_SYNC.to_owned(),
        request: wanted.request.clone(),
        expires: None,
    };
    let given = order::give(app, &order, std::slice::from_ref(&wanted.target)).await;
    let live = given.map_err(|e| Failure {
        busy: matches!(e, OrderError::Busy | OrderError::Store(_)),
        lasts: false,
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
            lasts: lasts(&error.code),
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

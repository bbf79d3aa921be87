//! Hands an agent its jobs after it came: those of an earlier connection as the protocol says, and those that waited
//! in the store, as fast as it takes them.

use super::connection::{Connection, SEND_WAIT, SendError};
use super::{Key, pull};
use crate::jobs::Resume;
use crate::server::App;
use crate::store::{Job, JobState};
use crate::time::now;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use triton::message::{Message, VERSION};

/// Jobs from the store that are on their way to one agent, and not accepted yet, at a time.
const ON_THEIR_WAY: usize = 16;
/// An agent that answers nothing is tried again after so long.
const RETRY: Duration = Duration::from_secs(10);

/// A request as a message: the job's token is its id.
pub fn message(job: &Job) -> Message {
    Message {
        kind: job.kind.clone(),
        version: VERSION,
        id: job.token.clone(),
        conversation_id: job.token.clone(),
        payload: Some(job.request.get().to_owned()),
        signature: None,
    }
}

/// Asks where a job stands, by its request once more: a known token is answered with the job's state or its end, and
/// an unknown one starts nothing, because the time in which it may start is over.
fn question(job: &Job) -> Option<Message> {
    let Ok(Value::Object(mut request)) = serde_json::from_str(job.request.get()) else {
        return None;
    };
    request.remove("notBefore");
    request.insert("notAfter".to_owned(), 1.into());
    let mut message = Message::within(&job.token, &job.kind, &request);
    message.id.clone_from(&job.token);
    Some(message)
}

/// Sees to the open jobs of an agent that is up. One task does it for each connection, which ends when nothing waits.
pub fn start(app: &Arc<App>, key: &Key) {
    let Some((connection, _)) = app.registry.connection(key) else {
        // It comes back when the agent does.
        return;
    };
    let nothing = app
        .jobs
        .all_open_of(&key.identifier, Some(&key.instance))
        .is_empty();
    if nothing || connection.delivering.swap(true, Ordering::AcqRel) {
        connection.room.notify_one();
        return;
    }
    let (app, key) = (app.clone(), key.clone());
    tokio::spawn(async move {
        loop {
            deliver(&app, &key, &connection).await;
            connection.delivering.store(false, Ordering::Release);
            // One may have come while it ended.
            if current(&app, &key, &connection).is_none()
                || !(app.jobs.has_queued(&key) || has_left(&app, &key, &connection))
                || connection.delivering.swap(true, Ordering::AcqRel)
            {
                return;
            }
        }
    });
}

/// Returns when no job waits for this connection, or it is over.
async fn deliver(app: &Arc<App>, key: &Key, connection: &Arc<Connection>) {
    loop {
        let Some((_, journal)) = current(app, key, connection) else {
            // Jobs may have been claimed here while another connection came, and can go there.
            return start(app, key);
        };
        for live in app.jobs.all_open_of(&key.identifier, Some(&key.instance)) {
            let is_new = !live.was_sent_on(connection.id);
            let message = match live.resume(connection.id, journal.as_deref(), now()) {
                Resume::Wait => None,
                Resume::Send(job) => Some(message(&job)),
                Resume::Ask(job) => question(&job),
            };
            if let Some(message) = message
                && !hand_over(connection, &message).await
            {
                return;
            }
            // Behind the request: what its reader asks for next belongs to it.
            live.inbox.ring();
            if is_new && live.state() == JobState::Accepted && live.is_abandoned() {
                pull::abandon(app, connection, &live.job().token);
            }
        }
        let until = queued(app, key, connection, journal.as_deref()).await;
        if has_left(app, key, connection) {
            continue;
        }
        if !app.jobs.has_queued(key) {
            return;
        }
        let _ = timeout_at(until, connection.room.notified()).await;
    }
}

/// Whether there is a job that was meant for an earlier connection, and came while its task was under way.
fn has_left(app: &App, key: &Key, connection: &Connection) -> bool {
    let open = app.jobs.all_open_of(&key.identifier, Some(&key.instance));
    open.iter().any(|live| live.is_left_by(connection.id))
}

/// Sends what waits in the store, as much as the agent may have on its way. Returns when to try again at the latest.
async fn queued(
    app: &Arc<App>,
    key: &Key,
    connection: &Arc<Connection>,
    journal: Option<&str>,
) -> Instant {
    let retry = Instant::now() + RETRY;
    if let Some(until) = connection.busy_until() {
        return until;
    }
    let due = app.jobs.claim_queued(key, connection.id, ON_THEIR_WAY);
    if due.is_empty() {
        return retry;
    }
    for live in &due {
        app.jobs.expire(live).await;
    }
    let stored = app.jobs.about_to_send(&due, journal).await;
    if let Err(e) = &stored {
        log::error!("queued jobs are not sent yet: {e}");
        connection.set_busy();
    }
    // After one that is not taken none is, so that their order stays.
    let mut going = stored.is_ok();
    for live in due {
        let send = |job: &Job| going && connection.send_message(&message(job)).is_ok();
        going = app.jobs.send_claimed(&live, connection.id, journal, send);
    }
    retry
}

/// The journal of the agent, if this is still its connection.
fn current(
    app: &App,
    key: &Key,
    connection: &Connection,
) -> Option<(Arc<Connection>, Option<String>)> {
    app.registry
        .connection(key)
        .filter(|(current, _)| current.id == connection.id && !current.has_ended())
}

/// Waits while the connection's queue is full; false where it is over.
async fn hand_over(connection: &Connection, message: &Message) -> bool {
    let sent = timeout(SEND_WAIT, async {
        loop {
            match connection.send_message(message) {
                Ok(()) => return true,
                Err(SendError::Offline) => return false,
                Err(SendError::Busy) => connection.room.notified().await,
            }
        }
    });
    sent.await.unwrap_or_else(|_| {
        connection.close("it does not read");
        false
    })
}

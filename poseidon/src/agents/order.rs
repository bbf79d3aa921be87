//! Asks agents for something that takes time: stores a job for each and sends it.

use super::connection::{Connection, SendError};
use super::registry::Target;
use super::{Key, delivery};
use crate::jobs::Live;
use crate::server::App;
use crate::store::{Job, JobState, StoreError};
use crate::time::now;
use serde_json::value::RawValue;
use std::sync::Arc;
use triton::message::payload::{self, ErrorCode};
use triton::message::sign::ROOM;
use triton::message::{DEFAULT_LIMIT, Message, VERSION, id};

/// What is asked for.
pub struct Order {
    /// Type of the message, such as `command`.
    pub kind: String,
    /// Its payload.
    pub request: Arc<RawValue>,
    /// Until when it may wait for an agent that is down; else it ends at once there.
    pub expires: Option<f64>,
}

/// Why nothing was asked for.
#[derive(Debug)]
pub enum OrderError {
    /// It cannot be written as a message.
    Invalid(String),
    /// The message would be longer than agents take.
    TooLarge(usize),
    /// Too many jobs are open.
    Busy,
    /// The store failed.
    Store(StoreError),
}

/// Gives the order to each of `targets`; a job for each, in their order.
pub async fn give(
    app: &Arc<App>,
    order: &Order,
    targets: &[Target],
) -> Result<Vec<Arc<Live>>, OrderError> {
    let tokens = targets.iter().map(|_| id::random()).collect();
    give_as(app, order, targets, tokens).await
}

/// The same with the tokens that the jobs are to have. The store takes no token twice.
pub async fn give_as(
    app: &Arc<App>,
    order: &Order,
    targets: &[Target],
    tokens: Vec<String>,
) -> Result<Vec<Arc<Live>>, OrderError> {
    let mut jobs = Vec::with_capacity(targets.len());
    for (target, token) in targets.iter().zip(tokens) {
        let connection = target.connection.as_ref();
        let job = Job {
            token,
            identifier: target.key.identifier.clone(),
            instance: target.key.instance.clone(),
            agent: target.name.clone(),
            state: connection.map_or(JobState::Queued, |_| JobState::Sent),
            created: now(),
            kind: order.kind.clone(),
            request: order.request.clone(),
            result: None,
            error: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            queue: order.expires.is_some(),
            expires: order.expires,
            journal: connection.and_then(|_| target.journal.clone()),
        };
        jobs.push((job, connection.map_or(0, |connection| connection.id)));
    }
    // Tried before anything is stored: a request that cannot be sent makes no job. One is enough to know,
    // for the others have the same length.
    if let Some((job, _)) = jobs.first() {
        fits(&delivery::message(job))?;
    }
    let Some(live) = app.jobs.create(jobs).await.map_err(OrderError::Store)? else {
        return Err(OrderError::Busy);
    };
    for (live, target) in live.iter().zip(targets) {
        if let Some(connection) = &target.connection {
            send(app, live, connection).await;
        }
        // The agent may have come, or come anew, while the job was stored.
        let current = app.registry.connection(&target.key);
        let is_same = |(current, _): &(Arc<Connection>, _)| {
            target.connection.as_ref().map(|c| c.id) == Some(current.id)
        };
        if live.state() == JobState::Queued || current.is_some_and(|c| !is_same(&c)) {
            delivery::start(app, &target.key);
        }
    }
    Ok(live)
}

/// Whether the order makes a message that agents take.
pub fn check(order: &Order) -> Result<(), OrderError> {
    fits(&Message {
        kind: order.kind.clone(),
        version: VERSION,
        id: id::random(),
        conversation_id: id::random(),
        payload: Some(order.request.get().to_owned()),
        signature: None,
    })
}

fn fits(message: &Message) -> Result<(), OrderError> {
    let text = message
        .encode()
        .map_err(|e| OrderError::Invalid(e.to_string()))?;
    // A signature comes to it where the device has a key.
    if text.len() + ROOM > DEFAULT_LIMIT {
        return Err(OrderError::TooLarge(text.len()));
    }
    Ok(())
}

/// Why a job was not cancelled.
#[derive(Debug)]
pub enum CancelError {
    /// Its agent is down.
    Down,
    /// Its agent takes no more messages.
    Busy,
}

/// Asks the agent to end a job; one that waits in the store, or is not sent yet, ends at once. True where it has.
pub async fn cancel(
    app: &App,
    live: &Arc<Live>,
    grace_seconds: Option<f64>,
) -> Result<bool, CancelError> {
    if app.jobs.cancel_unsent(live).await {
        return Ok(true);
    }
    let job = live.job();
    let key = Key {
        identifier: job.identifier,
        instance: job.instance,
    };
    let (connection, _) = app.registry.connection(&key).ok_or(CancelError::Down)?;
    let cancel = payload::Cancel {
        job: job.token.clone(),
        grace_seconds,
    };
    let message = Message::with(payload::CANCEL, &cancel);
    app.jobs.cancelling(&message.id, &job.token);
    connection.send_message(&message).map_err(|e| match e {
        SendError::Offline => CancelError::Down,
        SendError::Busy => CancelError::Busy,
    })?;
    Ok(false)
}

/// Where it is not taken this is an end, and not a state that anybody could wait for, unless the job may wait.
async fn send(app: &App, live: &Arc<Live>, connection: &Connection) {
    let send = |job: &Job| {
        match connection.send_message(&delivery::message(job)) {
            // Poseidon itself sent the agent away: the job is sent when both are back.
            Err(SendError::Offline) if *app.stop.borrow() => Ok(()),
            sent => sent.map_err(not_sent),
        }
    };
    app.jobs.send_new(live, connection.id, send).await;
}

fn not_sent(e: SendError) -> payload::Error {
    match e {
        SendError::Offline => payload::Error::new(
            ErrorCode::Other("offline".to_owned()),
            "the agent has gone before it got the job",
        ),
        SendError::Busy => payload::Error::new(
            ErrorCode::Busy,
            "the agent does not take what already waits for it",
        ),
    }
}

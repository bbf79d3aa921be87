//! Calls about jobs.

use super::agents::resolve;
use super::extract::{Path, Query};
use super::{Answer, ApiError, Shared, json, ndjson, object, read};
use crate::agents::connection::{Connection, SendError};
use crate::agents::registry::Target;
use crate::agents::{Key, delivery};
use crate::jobs::output::Lines;
use crate::jobs::{JobView, Live};
use crate::server::App;
use crate::store::{Job, JobFilter, JobState};
use crate::time::now;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use triton::message::payload::{self, ErrorCode};
use triton::message::{DEFAULT_LIMIT, Message};

/// Instances that one request may address.
const MAX_TARGETS: usize = 10_000;
/// A job that waits for its agent does so for a day…
const EXPIRY: u32 = 86_400;
/// …or at most for a year, in seconds.
const MAX_EXPIRY: u32 = 31_536_000;
/// Jobs that one request lists.
const MAX_LIST: u32 = 500;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Create {
    agents: Vec<String>,
    command: Value,
    #[serde(default)]
    queue: bool,
    expires_seconds: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    agent: Option<String>,
    state: Option<JobState>,
    #[serde(default = "default_limit")]
    limit: u32,
}

fn default_limit() -> u32 {
    50
}

#[derive(Deserialize)]
pub(super) struct OutputQuery {
    #[serde(default)]
    follow: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CancelBody {
    grace_seconds: Option<f64>,
}

pub(super) async fn create(State(app): Shared, body: Body) -> Answer {
    let Create {
        agents,
        command,
        queue,
        expires_seconds,
    } = read(body).await?;
    check(&command)?;
    let expires = match expires_seconds {
        Some(_) if !queue => return Err(ApiError::invalid("expiresSeconds is for queue only")),
        Some(seconds) if !(1..=MAX_EXPIRY).contains(&seconds) => {
            return Err(ApiError::invalid(format!(
                "expiresSeconds is 1 to {MAX_EXPIRY}"
            )));
        }
        seconds => queue.then(|| now() + f64::from(seconds.unwrap_or(EXPIRY))),
    };
    let targets = targets(&app, &agents, queue)?;
    let request =
        serde_json::value::to_raw_value(&command).map_err(|e| ApiError::invalid(e.to_string()))?;
    let mut jobs = Vec::with_capacity(targets.len());
    for target in &targets {
        let connection = target.connection.as_ref();
        let job = Job {
            token: triton::message::id::random(),
            identifier: target.key.identifier.clone(),
            instance: target.key.instance.clone(),
            agent: target.name.clone(),
            state: connection.map_or(JobState::Queued, |_| JobState::Sent),
            created: now(),
            request: request.clone(),
            result: None,
            error: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            queue,
            expires,
            journal: connection.and_then(|_| target.journal.clone()),
        };
        jobs.push((job, connection.map_or(0, |connection| connection.id)));
    }
    // Tried before anything is stored: a request that cannot be sent makes no job. One is enough to know,
    // for the others have the same length.
    if let Some((job, _)) = jobs.first() {
        let text = delivery::message(&job.token, &request)
            .encode()
            .map_err(|e| ApiError::invalid(e.to_string()))?;
        if text.len() > DEFAULT_LIMIT {
            return Err(ApiError::too_large(format!(
                "the command makes a message of {} bytes, agents take {DEFAULT_LIMIT}",
                text.len()
            )));
        }
    }
    let Some(live) = app.jobs.create(jobs).await? else {
        return Err(ApiError::busy("too many jobs are open"));
    };
    for (live, target) in live.iter().zip(&targets) {
        if let Some(connection) = &target.connection {
            send(&app, live, connection).await;
        }
        // The agent may have come, or come anew, while the job was stored.
        let current = app.registry.connection(&target.key);
        let is_same = |(current, _): &(Arc<Connection>, _)| {
            target.connection.as_ref().map(|c| c.id) == Some(current.id)
        };
        if live.state() == JobState::Queued || current.is_some_and(|c| !is_same(&c)) {
            delivery::start(&app, &target.key);
        }
    }
    let jobs: Vec<Job> = live.iter().map(|live| live.job()).collect();
    let views: Vec<JobView<'_>> = jobs.iter().map(JobView::from).collect();
    let body = object("jobs", &views);
    Ok((StatusCode::CREATED, body).into_response())
}

/// Where it is not taken this is an end, and not a state that anybody could wait for, unless the job may wait.
async fn send(app: &App, live: &Arc<Live>, connection: &Connection) {
    let send = |job: &Job| {
        let text = delivery::message(&job.token, &job.request).encode();
        text.map_err(|_| SendError::Offline)
            .and_then(|text| connection.send(text))
            .map_err(not_sent)
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

/// Whether a command makes sense; the agent decides the rest.
fn check(command: &Value) -> Result<(), ApiError> {
    let typed: payload::Command = serde_json::from_value(command.clone())
        .map_err(|e| ApiError::invalid(format!("the command cannot be read: {e}")))?;
    match (&typed.argv, &typed.shell) {
        (Some(argv), None) if argv.first().is_some_and(|program| !program.is_empty()) => {}
        (None, Some(shell)) if !shell.is_empty() => {}
        _ => {
            return Err(ApiError::invalid(
                "a command has either argv, with a program, or shell",
            ));
        }
    }
    if let Some(stdin) = &typed.stdin
        && triton::message::text::decode(stdin).is_none()
    {
        return Err(ApiError::invalid("stdin is not base64"));
    }
    let negative = |n: Option<f64>| n.is_some_and(|n| !n.is_finite() || n <= 0.0);
    if negative(typed.timeout_seconds) {
        return Err(ApiError::invalid("timeoutSeconds is more than zero"));
    }
    Ok(())
}

/// The instances that the names stand for, each once; all must be known, and up unless the jobs may wait.
fn targets(app: &App, names: &[String], queue: bool) -> Result<Vec<Target>, ApiError> {
    if names.is_empty() {
        return Err(ApiError::invalid("no agent is named"));
    }
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    let mut down = Vec::new();
    for name in names {
        let targets = resolve(app, name)?;
        if targets.is_empty() {
            down.push(format!("{name} (has never connected)"));
        }
        // A name means all its instances; those that are down do not keep the others from working only
        // where they are plain Tritons, whose numbers come and go.
        let some_up = targets.iter().any(|t| t.connection.is_some());
        for target in targets {
            if !seen.insert(target.key.clone()) {
                continue;
            }
            let passing = some_up && target.key.instance.starts_with("plain");
            if target.connection.is_some() || (queue && !passing) {
                all.push(target);
            } else if !passing {
                down.push(format!("{}/{}", target.name, target.key.instance));
            }
        }
    }
    if !down.is_empty() {
        return Err(ApiError::offline(format!(
            "nothing was started, for these are down: {}",
            down.join(", ")
        )));
    }
    if all.len() > MAX_TARGETS {
        return Err(ApiError::too_large(format!(
            "{} instances, more than {MAX_TARGETS}",
            all.len()
        )));
    }
    Ok(all)
}

pub(super) async fn list(State(app): Shared, Query(query): Query<ListQuery>) -> Answer {
    let mut filter = JobFilter {
        limit: query.limit.clamp(1, MAX_LIST),
        state: query.state,
        ..JobFilter::default()
    };
    if let Some(name) = &query.agent {
        let targets = resolve(&app, name)?;
        let Some(first) = targets.first() else {
            return Ok(object("jobs", &[(); 0]));
        };
        filter.identifier = Some(first.key.identifier.clone());
        if name.contains('/') {
            filter.instance = Some(first.key.instance.clone());
        }
    }
    let jobs = app.jobs.list(filter).await?;
    let views: Vec<JobView<'_>> = jobs.iter().map(JobView::from).collect();
    Ok(object("jobs", &views))
}

fn unknown(token: &str) -> ApiError {
    ApiError::not_found(format!("there is no job {token}"))
}

pub(super) async fn show(State(app): Shared, Path(token): Path<String>) -> Answer {
    let job = app.jobs.get(&token).await?.ok_or_else(|| unknown(&token))?;
    Ok(json(&JobView::from(&job)))
}

pub(super) async fn output(
    State(app): Shared,
    Path(token): Path<String>,
    Query(query): Query<OutputQuery>,
) -> Answer {
    let lines = Lines::open(&app.jobs, &token, query.follow, app.stop.clone())
        .await?
        .ok_or_else(|| unknown(&token))?;
    Ok(ndjson(futures_util::stream::unfold(
        lines,
        |mut lines| async move { lines.next().await.map(|bytes| (bytes, lines)) },
    )))
}

pub(super) async fn cancel(State(app): Shared, Path(token): Path<String>, body: Body) -> Answer {
    let CancelBody { grace_seconds } = read(body).await?;
    if grace_seconds.is_some_and(|s| !s.is_finite() || s < 0.0) {
        return Err(ApiError::invalid("graceSeconds is zero or more"));
    }
    let runs = |live: &Arc<Live>| live.job().state != JobState::Ended;
    let Some(live) = app.jobs.open(&token).filter(runs) else {
        return Err(match app.jobs.get(&token).await? {
            Some(_) => ApiError::conflict(format!("job {token} has ended")),
            None => unknown(&token),
        });
    };
    if app.jobs.cancel_queued(&live).await {
        return Ok(object("job", &JobView::from(&live.job())));
    }
    let job = live.job();
    let key = Key {
        identifier: job.identifier.clone(),
        instance: job.instance.clone(),
    };
    let Some((connection, _)) = app.registry.connection(&key) else {
        return Err(ApiError::offline(format!(
            "{}/{} is down; cancel the job when it is back",
            job.agent, job.instance
        )));
    };
    let message = Message::with(
        payload::CANCEL,
        &payload::Cancel {
            job: token.clone(),
            grace_seconds,
        },
    );
    let text = message
        .encode()
        .map_err(|e| ApiError::invalid(e.to_string()))?;
    app.jobs.cancelling(&message.id, &token);
    connection.send(text).map_err(|e| match e {
        SendError::Offline => ApiError::offline(format!("{} has just gone", job.agent)),
        SendError::Busy => ApiError::busy(format!("{} takes no more messages", job.agent)),
    })?;
    Ok(object("job", &JobView::from(&job)))
}

//! Calls about jobs.

mod repeated;

use super::agents::resolve;
use super::door::Who;
use super::extract::{Path, Query};
use super::{Answer, ApiError, Shared, json, ndjson, object, read};
use crate::agents::order::{self, CancelError, Order, OrderError};
use crate::agents::registry::Target;
use crate::jobs::output::Lines;
use crate::jobs::{JobView, Live};
use crate::server::App;
use crate::store::{Job, JobFilter, JobState};
use crate::time::now;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::Arc;
use triton::message::DEFAULT_LIMIT;
use triton::message::payload;

/// What can be asked for by this call. What has a call of its own is not among them.
const TYPES: &[&str] = &[
    payload::COMMAND,
    payload::SCRIPT,
    "engine.command",
    "agent.reload",
    "agent.restart",
    "agent.exit",
    "system.reboot",
    "system.shutdown",
    payload::FILE_PUT,
    payload::DIRECTORY_PUT,
    payload::FILE_LIST,
    "agent.update",
];
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
    command: Option<Value>,
    r#type: Option<String>,
    payload: Option<Value>,
    #[serde(default)]
    queue: bool,
    expires_seconds: Option<u32>,
    /// The caller's own, by which a request is known that is made again.
    token: Option<String>,
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

/// The body of a cancel: seconds between SIGTERM and SIGKILL.
pub(super) async fn grace(body: Body) -> Result<Option<f64>, ApiError> {
    let CancelBody { grace_seconds } = read(body).await?;
    if grace_seconds.is_some_and(|s| !s.is_finite() || s < 0.0) {
        return Err(ApiError::invalid("graceSeconds is zero or more"));
    }
    Ok(grace_seconds)
}

impl From<OrderError> for ApiError {
    fn from(e: OrderError) -> Self {
        match e {
            OrderError::Invalid(reason) => Self::invalid(reason),
            OrderError::TooLarge(size) => Self::too_large(format!(
                "the request makes a message of {size} bytes, agents take {DEFAULT_LIMIT}"
            )),
            OrderError::Busy => Self::busy("too many jobs are open"),
            OrderError::Store(e) => e.into(),
        }
    }
}

pub(super) async fn create(State(app): Shared, who: Who, body: Body) -> Answer {
    let Create {
        agents,
        command,
        r#type,
        payload,
        queue,
        expires_seconds,
        token,
    } = read(body).await?;
    let (kind, payload) = what(command, r#type, payload)?;
    let expires = expiry(queue, expires_seconds)?;
    let request =
        serde_json::value::to_raw_value(&payload).map_err(|e| ApiError::invalid(e.to_string()))?;
    let order = Order {
        kind,
        request: request.into(),
        expires,
    };
    if let Some(token) = token {
        return repeated::create_as(&app, &who, &token, &agents, &order).await;
    }
    let targets = targets(&app, &who, &agents, queue)?;
    Ok(created(&who, &order::give(&app, &order, &targets).await?))
}

fn created(who: &Who, live: &[Arc<Live>]) -> Response {
    let jobs: Vec<Job> = live.iter().map(|live| live.job()).collect();
    for job in &jobs {
        who.note(&format!(
            "{}/{}: job {}",
            job.agent, job.instance, job.token
        ));
    }
    let views: Vec<JobView<'_>> = jobs.iter().map(JobView::from).collect();
    (StatusCode::CREATED, object("jobs", &views)).into_response()
}

/// Until when a job may wait for its agent, if it may.
pub(super) fn expiry(queue: bool, seconds: Option<u32>) -> Result<Option<f64>, ApiError> {
    match seconds {
        Some(_) if !queue => Err(ApiError::invalid("expiresSeconds is for queue only")),
        Some(seconds) if !(1..=MAX_EXPIRY).contains(&seconds) => Err(ApiError::invalid(format!(
            "expiresSeconds is 1 to {MAX_EXPIRY}"
        ))),
        seconds => Ok(queue.then(|| now() + f64::from(seconds.unwrap_or(EXPIRY)))),
    }
}

/// What is asked for: its type and its payload.
pub(super) fn what(
    command: Option<Value>,
    kind: Option<String>,
    payload: Option<Value>,
) -> Result<(String, Value), ApiError> {
    let (kind, payload) = match (command, kind, payload) {
        (Some(command), None, None) => (payload::COMMAND.to_owned(), command),
        (None, Some(kind), payload) => (kind, payload.unwrap_or_else(|| Value::Object(Map::new()))),
        _ => {
            return Err(ApiError::invalid(
                "give either command, or type and payload",
            ));
        }
    };
    // Those of plugins are known to the device only.
    if !TYPES.contains(&kind.as_str()) && triton::external::check_type(&kind).is_err() {
        let types = TYPES.join(", ");
        let text = format!("no job has the type {kind:?}; there are {types}, and those of plugins");
        return Err(ApiError::invalid(text));
    }
    if kind == payload::COMMAND {
        check(&payload)?;
    } else if !payload.is_object() {
        return Err(ApiError::invalid("the payload is an object"));
    }
    Ok((kind, payload))
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
fn targets(app: &App, who: &Who, names: &[String], queue: bool) -> Result<Vec<Target>, ApiError> {
    if names.is_empty() {
        return Err(ApiError::invalid("no agent is named"));
    }
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    let mut down = Vec::new();
    for name in names {
        let targets = resolve(app, who, name)?;
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

pub(super) async fn list(State(app): Shared, who: Who, Query(query): Query<ListQuery>) -> Answer {
    if !(1..=MAX_LIST).contains(&query.limit) {
        return Err(ApiError::invalid(format!("limit is 1 to {MAX_LIST}")));
    }
    let mut filter = JobFilter {
        limit: query.limit,
        state: query.state,
        only: who.only(&app.registry),
        ..JobFilter::default()
    };
    if let Some(name) = &query.agent {
        let targets = resolve(&app, &who, name)?;
        let Some(first) = targets.first() else {
            return Ok(object("jobs", &[(); 0]));
        };
        filter.identifier = Some(first.key.identifier.clone());
        if name.contains('/') {
            filter.instance = Some(first.key.instance.clone());
        }
    }
    let jobs = app.jobs.list(filter).await?;
    let views: Vec<JobView<'_>> = jobs
        .iter()
        .map(|job| JobView::from(job).told(who.is_viewer()))
        .collect();
    Ok(object("jobs", &views))
}

/// A job of a device that the caller may see.
async fn find(app: &App, who: &Who, token: &str) -> Result<Job, ApiError> {
    let job = app.jobs.get(token).await?;
    job.filter(|job| who.sees(&app.registry, &job.key()))
        .ok_or_else(|| unknown(token))
}

fn unknown(token: &str) -> ApiError {
    ApiError::not_found(format!("there is no job {token}"))
}

pub(super) async fn show(State(app): Shared, who: Who, Path(token): Path<String>) -> Answer {
    let job = find(&app, &who, &token).await?;
    Ok(json(&JobView::from(&job).told(who.is_viewer())))
}

pub(super) async fn output(
    State(app): Shared,
    who: Who,
    Path(token): Path<String>,
    Query(query): Query<OutputQuery>,
) -> Answer {
    find(&app, &who, &token).await?;
    let lines = Lines::open(&app.jobs, &token, query.follow, app.stop.clone())
        .await?
        .ok_or_else(|| unknown(&token))?
        .told(who.is_viewer());
    Ok(ndjson(futures_util::stream::unfold(
        lines,
        |mut lines| async move { lines.next().await.map(|bytes| (bytes, lines)) },
    )))
}

pub(super) async fn cancel(
    State(app): Shared,
    who: Who,
    Path(token): Path<String>,
    body: Body,
) -> Answer {
    let grace_seconds = grace(body).await?;
    let job = find(&app, &who, &token).await?;
    who.note(&format!("on {}/{}", job.agent, job.instance));
    let runs = |live: &Arc<Live>| live.job().state != JobState::Ended;
    let Some(live) = app.jobs.open(&token).filter(runs) else {
        return Err(ApiError::conflict(format!("job {token} has ended")));
    };
    let cancelled = order::cancel(&app, &live, grace_seconds).await;
    let job = live.job();
    match cancelled {
        Ok(_) => Ok(object("job", &JobView::from(&job))),
        Err(CancelError::Down) => Err(ApiError::offline(format!(
            "{}/{} is down; cancel the job when it is back",
            job.agent, job.instance
        ))),
        Err(CancelError::Busy) => Err(ApiError::busy(format!(
            "{} takes no more messages",
            job.agent
        ))),
    }
}

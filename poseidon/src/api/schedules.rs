//! Calls about what devices run by their own clocks.

use super::agents::resolve;
use super::extract::{Path, Query};
use super::{Answer, ApiError, Shared, identifier, json, read, whole};
use crate::agents::ask::{AskError, ask};
use crate::agents::provision;
use crate::schedules::SetError;
use crate::server::App;
use crate::store::schedules::Schedule;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use triton::message::{ErrorCode, Message, payload};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    entries: Value,
    parent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveQuery {
    parent: Option<String>,
}

#[derive(Serialize)]
struct ScheduleView<'a> {
    name: &'a str,
    revision: Option<&'a str>,
    changed: Option<f64>,
    entries: &'a RawValue,
    devices: Vec<Device>,
}

/// One instance, and what it has of it.
#[derive(Serialize)]
struct Device {
    instance: String,
    state: &'static str,
    revision: Option<String>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct Edited<'a> {
    changed: bool,
    schedule: ScheduleView<'a>,
}

fn view<'a>(
    app: &App,
    name: &'a str,
    schedule: Option<&'a Schedule>,
) -> Result<ScheduleView<'a>, ApiError> {
    let none = || ApiError::invalid("this cannot be");
    let wanted = schedule.map(|s| s.revision.as_str());
    let targets = app.registry.resolve(name).unwrap_or_default();
    let devices = targets.into_iter().map(|target| {
        let standing = provision::schedule(app, &target.key);
        let state = standing.as_ref().map_or("down", |_| "up");
        let (revision, problem) = match standing {
            None => (None, None),
            Some(standing) if wanted.is_none() || standing.revision.as_deref() == wanted => {
                (standing.revision, None)
            }
            Some(standing) if standing.revision.is_none() => {
                let why = "this agent knows no schedules: it is too old, or has them switched off";
                (None, Some(why.to_owned()))
            }
            Some(standing) => (standing.revision, standing.problem),
        };
        Device {
            instance: target.key.instance,
            state,
            revision,
            problem,
        }
    });
    Ok(ScheduleView {
        name,
        revision: wanted,
        changed: schedule.map(|s| s.changed),
        entries: match schedule {
            Some(schedule) => &schedule.entries,
            None => serde_json::from_str("[]").map_err(|_| none())?,
        },
        devices: devices.collect(),
    })
}

pub(super) async fn show(State(app): Shared, Path(name): Path<String>) -> Answer {
    let hash = identifier(&app, &name)?;
    let schedule = app.schedules.get(&hash).await?;
    Ok(json(&view(&app, &name, schedule.as_ref())?))
}

pub(super) async fn put(State(app): Shared, Path(name): Path<String>, body: Body) -> Answer {
    let Put { entries, parent } = read(body).await?;
    set(app, name, entries, parent).await
}

/// What was taken away is an empty list: devices that are down now are to lose theirs too.
pub(super) async fn remove(
    State(app): Shared,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Answer {
    let hash = identifier(&app, &name)?;
    if app.schedules.revision(&hash).await?.is_none() {
        return Err(ApiError::not_found(format!(
            "no schedule was ever set for {name}"
        )));
    }
    set(app, name, Value::Array(Vec::new()), query.parent).await
}

async fn set(app: Arc<App>, name: String, entries: Value, parent: Option<String>) -> Answer {
    let hash = identifier(&app, &name)?;
    let work = async move {
        let (changed, schedule) = app.schedules.set(&hash, &entries, parent).await?;
        if changed {
            log::info!("{name} has a new schedule, revision {}", schedule.revision);
        }
        let schedule = view(&app, &name, Some(&schedule))?;
        Ok(json(&Edited { changed, schedule }))
    };
    whole(work).await?
}

/// What a device says of its schedule now: its own entries too, and the times of all.
pub(super) async fn of_agent(State(app): Shared, Path(name): Path<String>) -> Answer {
    let targets = resolve(&app, &name)?;
    let [target] = targets.as_slice() else {
        return Err(match targets.len() {
            0 => ApiError::offline(format!("{name} has never connected")),
            n => ApiError::conflict(format!("{name} has {n} instances: name one, NAME/INSTANCE")),
        });
    };
    let Some(connection) = &target.connection else {
        return Err(ApiError::offline(format!("{name} is down")));
    };
    let question = Message::new(payload::SCHEDULE_LIST);
    let answer = ask(connection, &question, payload::SCHEDULE_LIST).await?;
    let text = answer.payload.as_deref().unwrap_or_default();
    let odd = |e: &dyn std::fmt::Display| AskError::Odd(e.to_string());
    if payload::depth(text) > payload::DATA_DEPTH {
        return Err(odd(&"it is nested too deep").into());
    }
    let list: &RawValue = serde_json::from_str(text).map_err(|e| odd(&e))?;
    Ok(json(&list))
}

impl From<SetError> for ApiError {
    fn from(e: SetError) -> Self {
        match e {
            SetError::Unknown => Self::not_found("the identifier was just forgotten"),
            SetError::Conflict(current) => Self::conflict(match current.as_str() {
                "" => "no schedule was ever set".to_owned(),
                current => format!("somebody else has changed the schedule: {current} is current"),
            }),
            SetError::Invalid(reason) => Self::invalid(reason),
            SetError::Store(e) => e.into(),
        }
    }
}

impl From<AskError> for ApiError {
    fn from(e: AskError) -> Self {
        let text = e.to_string();
        match e {
            AskError::Offline => Self::offline(text),
            AskError::Busy => Self::busy(text),
            AskError::Refused(error) => match error.code {
                ErrorCode::Refused => Self::new(StatusCode::FORBIDDEN, "refused", text),
                ErrorCode::Busy => Self::busy(text),
                _ => Self::agent(text),
            },
            AskError::Silent | AskError::TooLarge(_) | AskError::Odd(_) => Self::agent(text),
        }
    }
}

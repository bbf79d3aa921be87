//! Calls about what devices run by their own clocks.

use super::ask::relay;
use super::door::Who;
use super::extract::{Path, Query};
use super::{Answer, ApiError, Shared, identifier, json, read, whole};
use crate::agents::provision;
use crate::doors::audit::{short, summary};
use crate::schedules::SetError;
use crate::server::App;
use crate::store::schedules::Schedule;
use axum::body::Body;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use triton::message::{Message, payload};

/// Characters of an entry that are written down.
const ENTRY: usize = 500;

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
    who: &Who,
    name: &'a str,
    schedule: Option<&'a Schedule>,
) -> Result<ScheduleView<'a>, ApiError> {
    let none = || ApiError::invalid("this cannot be");
    let wanted = schedule.map(|s| s.revision.as_str());
    let targets = app.registry.resolve(who.scope(), name).unwrap_or_default();
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
            Some(standing) => (standing.revision.clone(), standing.problem(wanted)),
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

pub(super) async fn show(State(app): Shared, who: Who, Path(name): Path<String>) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    let schedule = app.schedules.get(&hash).await?;
    Ok(json(&view(&app, &who, &name, schedule.as_ref())?))
}

pub(super) async fn put(
    State(app): Shared,
    who: Who,
    Path(name): Path<String>,
    body: Body,
) -> Answer {
    let Put { entries, parent } = read(body).await?;
    set(app, who, name, entries, parent).await
}

/// What was taken away is an empty list: devices that are down now are to lose theirs too.
pub(super) async fn remove(
    State(app): Shared,
    who: Who,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    if app.schedules.revision(&hash).await?.is_none() {
        return Err(ApiError::not_found(format!(
            "no schedule was ever set for {name}"
        )));
    }
    set(app, who, name, Value::Array(Vec::new()), query.parent).await
}

async fn set(
    app: Arc<App>,
    who: Who,
    name: String,
    entries: Value,
    parent: Option<String>,
) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    // What is damaged can be set anew: whether it may stand is said below.
    let before = app.schedules.get(&hash).await.ok().flatten();
    // Before it is done: of a call whose client goes away meanwhile no more is known.
    note(&who, before.as_ref(), &entries);
    let work = async move {
        let (changed, schedule) = app.schedules.set(&hash, &entries, parent).await?;
        who.note(&format!("revision {}", schedule.revision));
        if changed {
            log::info!("{name} has a new schedule, revision {}", schedule.revision);
        }
        let schedule = view(&app, &who, &name, Some(&schedule))?;
        Ok(json(&Edited { changed, schedule }))
    };
    whole(work).await?
}

/// Writes down what is new in a schedule and what is gone: nothing else keeps what ran by it.
fn note(who: &Who, before: Option<&Schedule>, entries: &Value) {
    let before = before.and_then(|s| serde_json::from_str(s.entries.get()).ok());
    let before: Vec<Value> = before.unwrap_or_default();
    let now = entries.as_array().map_or(&[][..], Vec::as_slice);
    for entry in now.iter().filter(|entry| !before.contains(entry)) {
        let (_, told) = summary(entry.to_string().as_bytes());
        who.note(&format!("set ({})", short(&told, ENTRY)));
    }
    let named = |entries: &[Value], name: &Value| entries.iter().any(|e| e["name"] == *name);
    for entry in before.iter().filter(|entry| !named(now, &entry["name"])) {
        who.note(&format!("removed {}", entry["name"]));
    }
}

/// What a device says of its schedule now: its own entries too, and the times of all.
pub(super) async fn of_agent(State(app): Shared, who: Who, Path(name): Path<String>) -> Answer {
    let question = Message::new(payload::SCHEDULE_LIST);
    relay(&app, &who, &name, &question, payload::SCHEDULE_LIST).await
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

//! Calls about agents.

use super::ask::relay;
use super::batches::select;
use super::door::Who;
use super::extract::{Path, Query};
use super::{Answer, ApiError, Shared, json, object};
use crate::agents::Key;
use crate::agents::registry::{NameError, Target};
use crate::jobs::{End, forgotten};
use crate::server::App;
use axum::extract::State;
use serde::Serialize;
use triton::message::{Message, payload};

/// An agent in few words.
#[derive(Serialize)]
struct Brief<'a> {
    name: &'a str,
    instance: &'a str,
    state: &'static str,
}

/// What one agent says of itself now; nothing of it is kept here.
pub(super) async fn status(State(app): Shared, who: Who, Path(name): Path<String>) -> Answer {
    let question = Message::new(payload::AGENT_STATUS);
    relay(&app, &who, &name, &question, payload::AGENT_STATUS).await
}

/// All, or those that `on` and `agent` mean, which may come several times.
pub(super) async fn list(
    State(app): Shared,
    who: Who,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer {
    let (mut on, mut names, mut brief) = (Vec::new(), Vec::new(), false);
    for (field, value) in query {
        match (field.as_str(), value.as_str()) {
            ("on", _) => on.push(value),
            ("agent", _) => names.push(value),
            ("brief", "true") => brief = true,
            ("brief", "false") => {}
            _ => {
                let text = format!("{field}={value}: there are on, agent and brief=true");
                return Err(ApiError::invalid(text));
            }
        }
    }
    if on.is_empty() && names.is_empty() {
        on.push("*".to_owned());
        if !brief {
            return Ok(object(
                "agents",
                &app.registry
                    .agents_json(app.registry.scope_keys(who.scope()).as_deref()),
            ));
        }
    }
    let targets = match select(&app, &who, &on, &names) {
        Err(e) if e.is_not_found() && names.is_empty() => Vec::new(),
        found => found?,
    };
    if !brief {
        let keys: Vec<Key> = targets.into_iter().map(|t| t.key).collect();
        return Ok(object("agents", &app.registry.agents_json(Some(&keys))));
    }
    let agents: Vec<Brief<'_>> = targets
        .iter()
        .map(|target| Brief {
            name: &target.name,
            instance: &target.key.instance,
            state: target.connection.as_ref().map_or("down", |_| "up"),
        })
        .collect();
    Ok(object("agents", &agents))
}

pub(super) async fn show(State(app): Shared, who: Who, Path(name): Path<String>) -> Answer {
    let target = one(&app, &who, &name)?;
    match app.registry.agents_json(Some(&[target.key])).first() {
        Some(agent) => Ok(json(agent)),
        None => Err(ApiError::not_found(format!("{name} has never connected"))),
    }
}

/// The one instance that a name stands for.
pub(super) fn one(app: &App, who: &Who, name: &str) -> Result<Target, ApiError> {
    let mut targets = resolve(app, who, name)?;
    if targets.len() > 1 {
        let instances: Vec<_> = targets
            .iter()
            .map(|t| format!("{}/{}", t.name, t.key.instance))
            .collect();
        return Err(ApiError::conflict(format!(
            "{name} has {} instances, name one of them: {}",
            targets.len(),
            instances.join(", ")
        )));
    }
    targets
        .pop()
        .ok_or_else(|| ApiError::not_found(format!("{name} has never connected")))
}

pub(super) async fn forget(State(app): Shared, who: Who, Path(name): Path<String>) -> Answer {
    let targets = resolve(&app, &who, &name)?;
    if let Some(up) = targets.iter().find(|t| t.connection.is_some()) {
        return Err(ApiError::conflict(format!(
            "{}/{} is up; only what is down can be forgotten",
            up.name, up.key.instance
        )));
    }
    for target in targets {
        if !app.registry.remove(&target.key) {
            return Err(ApiError::conflict(format!(
                "{} has just come up",
                target.name
            )));
        }
        app.metrics.forget(&target.key);
        abandon(&app, &target.key.identifier, Some(&target.key.instance)).await?;
        let key = target.key;
        app.db
            .call(move |store| store.delete_instance(&key.identifier, &key.instance))
            .await?;
    }
    Ok(json(&serde_json::json!({})))
}

/// Ends the open jobs of what is forgotten, for nobody will ever report their end, and deletes the output of all
/// its jobs.
pub(super) async fn abandon(
    app: &App,
    identifier: &str,
    instance: Option<&str>,
) -> Result<(), ApiError> {
    for live in app.jobs.all_open_of(identifier, instance) {
        app.jobs.end(&live, End::Error(forgotten())).await;
    }
    Ok(app.jobs.forget_output(identifier, instance).await?)
}

/// The agents that a name stands for, of those that the caller may see.
pub(super) fn resolve(app: &App, who: &Who, name: &str) -> Result<Vec<Target>, ApiError> {
    app.registry
        .resolve(who.scope(), name)
        .map_err(|e| match e {
            NameError::Unknown => ApiError::not_found(format!("there is no agent {name}")),
            NameError::Ambiguous => ApiError::conflict(format!(
                "{name} fits several instances: give more of the instance id"
            )),
        })
}

//! Calls about batches: one request to many devices.

use super::door::Who;
use super::extract::{Path, Query};
use super::jobs::{expiry, grace, what};
use super::{Answer, ApiError, Shared, json, ndjson, object, read, token};
use crate::agents::Key;
use crate::agents::order::{self, Order};
use crate::agents::registry::Target;
use crate::agents::selector::Selector;
use crate::batches::{self, Batch, BatchView, Plan, driver, output};
use crate::server::App;
use crate::store::StoreError;
use crate::store::batches::Batch as Row;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;

/// Selectors that one request may have.
const MAX_SELECTORS: usize = 64;
/// Batches that one request lists.
const MAX_LIST: u32 = 500;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Create {
    #[serde(default)]
    on: Vec<String>,
    #[serde(default)]
    agents: Vec<String>,
    command: Option<Value>,
    r#type: Option<String>,
    payload: Option<Value>,
    #[serde(default = "concurrency")]
    concurrency: u32,
    #[serde(default)]
    canary: u32,
    #[serde(default)]
    stop_on_failures: u32,
    #[serde(default)]
    queue: bool,
    expires_seconds: Option<u32>,
    /// The caller's own, by which a request is known that is made again.
    id: Option<String>,
}

fn concurrency() -> u32 {
    batches::CONCURRENCY
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    #[serde(default = "limit")]
    limit: u32,
}

fn limit() -> u32 {
    50
}

#[derive(Deserialize)]
pub(super) struct OutputQuery {
    #[serde(default)]
    follow: bool,
}

pub(super) async fn create(State(app): Shared, who: Who, body: Body) -> Answer {
    let Create {
        on,
        agents,
        command,
        r#type,
        payload,
        concurrency,
        canary,
        stop_on_failures,
        queue,
        expires_seconds,
        id,
    } = read(body).await?;
    let (kind, payload) = what(command, r#type, payload)?;
    let expires = expiry(queue, expires_seconds)?;
    let most = batches::MAX_CONCURRENCY;
    if !(1..=most).contains(&concurrency) {
        return Err(ApiError::invalid(format!("concurrency is 1 to {most}")));
    }
    if let Some(id) = &id {
        token::check("id", id)?;
    }
    let request =
        serde_json::value::to_raw_value(&payload).map_err(|e| ApiError::invalid(e.to_string()))?;
    let is_own = id.is_some();
    let (new, created) = batches::new_id();
    let row = Row {
        id: id.unwrap_or(new),
        created,
        kind,
        request: request.into(),
        on,
        agents,
        concurrency,
        canary,
        stop_on_failures,
        queue,
        expires,
        total: 0,
        stopped: None,
        ended: None,
        counts: None,
    };
    // First of all: a device may have been forgotten since.
    if is_own && let Some(batch) = made(&app, &who, &row).await? {
        return Ok(again(&who, &batch));
    }
    let targets = select(&app, &who, &row.on, &row.agents)?;
    order::check(&Order {
        kind: row.kind.clone(),
        request: row.request.clone(),
        expires,
    })?;
    let plan = Plan {
        targets,
        row: row.clone(),
    };
    let batch = match app.batches.create(plan).await {
        // Somebody was faster by a moment.
        Err(StoreError::TokenTaken) => {
            let batch = made(&app, &who, &row).await?;
            let batch = batch.ok_or_else(|| token::taken("id", &row.id))?;
            return Ok(again(&who, &batch));
        }
        created => created?,
    };
    let Some(batch) = batch else {
        return Err(ApiError::busy(format!(
            "too many batches are not over: there may be {}, with {} devices in all",
            batches::MAX_OPEN,
            batches::MAX_OPEN_MEMBERS
        )));
    };
    who.note(&batch.told());
    driver::start(&app, &batch, false);
    let body = object("batch", &batch.view(false));
    Ok((StatusCode::CREATED, body).into_response())
}

/// The batch with this id, where it is what is asked for; an error where it is another one, or has a device that the
/// caller may not see.
async fn made(app: &App, who: &Who, row: &Row) -> Result<Option<Arc<Batch>>, ApiError> {
    match app.batches.get(&row.id).await? {
        Some(batch) if !batch.asks_like(row) || !sees(app, who, &batch) => {
            Err(token::taken("id", &row.id))
        }
        found => Ok(found),
    }
}

/// The answer to a request that was made before.
fn again(who: &Who, batch: &Batch) -> Response {
    who.note(&format!("{}, as before", batch.told()));
    object("batch", &batch.view(false))
}

/// The instances that are meant, each once, in the order of selectors and names. All names must be known.
pub(super) fn select(
    app: &App,
    who: &Who,
    on: &[String],
    names: &[String],
) -> Result<Vec<Target>, ApiError> {
    if on.is_empty() && names.is_empty() {
        return Err(ApiError::invalid("no agent is named: give on or agents"));
    }
    if on.len() > MAX_SELECTORS {
        return Err(ApiError::too_large(format!(
            "more than {MAX_SELECTORS} selectors"
        )));
    }
    let read = |text: &String| {
        text.parse::<Selector>()
            .map_err(|e| ApiError::invalid(format!("the selector {text:?} is wrong {e}")))
    };
    let selectors = on.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let names = each_once(names)?;
    let mut chosen = Chosen::default();
    for name in names {
        let targets = super::agents::resolve(app, who, name)?;
        if targets.is_empty() {
            let text = format!("{name} has never connected: there is no device of this name");
            return Err(ApiError::offline(text));
        }
        chosen.add(targets)?;
    }
    if !selectors.is_empty() {
        chosen.add(app.registry.select(who.scope(), &selectors))?;
    }
    chosen.all()
}

/// Names without their repetitions: to look one up again costs as much as the first time.
fn each_once(names: &[String]) -> Result<Vec<&str>, ApiError> {
    let most = batches::MAX_MEMBERS;
    let (mut seen, mut once) = (HashSet::new(), Vec::new());
    for name in names.iter().map(String::as_str) {
        if seen.insert(name) {
            once.push(name);
        }
        if once.len() > most {
            return Err(ApiError::too_large(format!("more than {most} names")));
        }
    }
    Ok(once)
}

/// Instances that are meant, each once: several names may stand for the same ones.
#[derive(Default)]
struct Chosen {
    found: Vec<Target>,
    seen: HashSet<Key>,
    /// Names of those that are up.
    up: HashSet<String>,
    /// Those that stay, whatever else is found.
    sure: usize,
}

impl Chosen {
    fn add(&mut self, targets: Vec<Target>) -> Result<(), ApiError> {
        for target in targets {
            if !self.seen.insert(target.key.clone()) {
                continue;
            }
            if target.connection.is_some() && !self.up.contains(&target.name) {
                self.up.insert(target.name.clone());
            }
            self.sure += usize::from(!passes(&target));
            if self.sure > batches::MAX_MEMBERS {
                return Err(too_many());
            }
            self.found.push(target);
        }
        Ok(())
    }

    fn all(self) -> Result<Vec<Target>, ApiError> {
        let Self { mut found, up, .. } = self;
        found.retain(|target| !passes(target) || !up.contains(&target.name));
        if found.is_empty() {
            return Err(ApiError::not_found("no device is selected"));
        }
        if found.len() > batches::MAX_MEMBERS {
            return Err(too_many());
        }
        Ok(found)
    }
}

/// Plain Tritons have numbers that come and go: one that is down says nothing where another is up.
fn passes(target: &Target) -> bool {
    target.connection.is_none() && target.key.instance.starts_with("plain")
}

fn too_many() -> ApiError {
    let most = batches::MAX_MEMBERS;
    ApiError::too_large(format!("more than {most} devices are selected"))
}

pub(super) async fn list(State(app): Shared, who: Who, Query(query): Query<ListQuery>) -> Answer {
    if !(1..=MAX_LIST).contains(&query.limit) {
        return Err(ApiError::invalid(format!("limit is 1 to {MAX_LIST}")));
    }
    let rows = app
        .batches
        .list(query.limit, who.only(&app.registry))
        .await?;
    let open: Vec<Option<Arc<Batch>>> = rows.iter().map(|row| app.batches.open(&row.id)).collect();
    let views: Vec<BatchView<'_>> = rows
        .iter()
        .zip(&open)
        .map(|(row, open)| match open {
            Some(batch) => batch.view(false),
            None => BatchView::from(row),
        })
        .map(|view| view.told(who.is_viewer()))
        .collect();
    Ok(object("batches", &views))
}

/// A batch of which the caller may see every device.
async fn find(app: &App, who: &Who, id: &str) -> Result<Arc<Batch>, ApiError> {
    let batch = app.batches.get(id).await?;
    let batch = batch.filter(|batch| sees(app, who, batch));
    batch.ok_or_else(|| ApiError::not_found(format!("there is no batch {id}")))
}

/// Whether all devices of a batch are within what the caller may see.
pub(super) fn sees(app: &App, who: &Who, batch: &Batch) -> bool {
    who.scope().is_all() || batch.keys().iter().all(|key| who.sees(&app.registry, key))
}

pub(super) async fn show(State(app): Shared, who: Who, Path(id): Path<String>) -> Answer {
    Ok(json(
        &find(&app, &who, &id)
            .await?
            .view(true)
            .told(who.is_viewer()),
    ))
}

pub(super) async fn cancel(
    State(app): Shared,
    who: Who,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    let grace_seconds = grace(body).await?;
    let batch = find(&app, &who, &id).await?;
    if batch.is_over() || !app.batches.cancel(&batch, grace_seconds).await? {
        return Err(ApiError::conflict(format!("batch {id} is over")));
    }
    Ok(object("batch", &batch.view(false)))
}

pub(super) async fn output(
    State(app): Shared,
    who: Who,
    Path(id): Path<String>,
    Query(query): Query<OutputQuery>,
) -> Answer {
    let batch = find(&app, &who, &id).await?;
    let lines = output::lines(&app, batch, query.follow, who.is_viewer());
    Ok(ndjson(output::stream(lines)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(instance: &str, number: usize) -> Vec<Target> {
        let target = |n| Target {
            key: Key {
                identifier: "hash".to_owned(),
                instance: format!("{instance}{n}"),
            },
            name: "box".to_owned(),
            connection: None,
            journal: None,
        };
        (0..number).map(target).collect()
    }

    #[test]
    fn no_more_is_gathered_than_a_batch_may_have() {
        let most = batches::MAX_MEMBERS;
        let mut chosen = Chosen::default();
        for _ in 0..3 {
            assert!(chosen.add(targets("i", most)).is_ok());
            assert_eq!(chosen.found.len(), most);
        }
        assert!(chosen.add(targets("j", most)).is_err());
        assert_eq!(chosen.found.len(), most, "it stops there");
        // Those that another one's connection may rule out are counted when all is known.
        let mut chosen = Chosen::default();
        assert!(chosen.add(targets("plain-", most + 1)).is_ok());
        assert!(chosen.all().is_err());
        let mut chosen = Chosen::default();
        assert!(chosen.add(targets("plain-", most + 1)).is_ok());
        chosen.up.insert("box".to_owned());
        assert!(chosen.add(targets("i", 1)).is_ok());
        assert_eq!(chosen.all().map(|found| found.len()).ok(), Some(1));
    }
}

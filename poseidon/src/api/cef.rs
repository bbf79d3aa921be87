//! CEF events: search, what comes, and how the forwarding stands.

use super::batches::select;
use super::door::Who;
use super::extract::Query;
use super::{Answer, ApiError, Shared, json};
use crate::agents::Key;
use crate::cef::search;
use crate::server::{App, stopped};
use crate::store::events::{EventFilter, Found, Instances};
use crate::time::now;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json as value};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Events that one request lists.
const MAX_LIST: usize = 1000;
/// Longest text that is looked for.
const MAX_TEXT: usize = 1000;
/// Longest time that a request waits for events to come, in seconds.
const MAX_WAIT: u64 = 30;

/// What is asked for.
#[derive(Default)]
struct Asked {
    filter: EventFilter,
    on: Vec<String>,
    agents: Vec<String>,
    before: Option<u64>,
    after: Option<u64>,
    limit: usize,
    wait: u64,
}

impl Asked {
    fn read(query: Vec<(String, String)>) -> Result<Self, ApiError> {
        let mut asked = Self {
            limit: 100,
            ..Self::default()
        };
        for (field, text) in query {
            let wrong = |what: &str| ApiError::invalid(format!("{field}={text}: {what}"));
            let number = || {
                text.parse::<u64>()
                    .map_err(|_| wrong("a number is expected"))
            };
            let time = || {
                let time = text.parse::<f64>().ok().filter(|time| time.is_finite());
                time.ok_or_else(|| wrong("a Unix time is expected"))
            };
            let filter = &mut asked.filter;
            match field.as_str() {
                "text" if text.len() > MAX_TEXT => {
                    return Err(ApiError::invalid(format!(
                        "text has more than {MAX_TEXT} bytes"
                    )));
                }
                "text" => {
                    let words = search::words(&text);
                    filter.words = Some(words.map_err(wrong)?);
                }
                "severity" => {
                    let severity = text.parse().ok().filter(|severity| *severity <= 10);
                    filter.severity = Some(severity.ok_or_else(|| wrong("0 to 10 is expected"))?);
                }
                "vendor" => filter.vendor = Some(text),
                "product" => filter.product = Some(text),
                "since" => filter.since = Some(time()?),
                "until" => filter.until = Some(time()?),
                "on" => asked.on.push(text),
                "agent" => asked.agents.push(text),
                "before" => asked.before = Some(number()?),
                "after" => asked.after = Some(number()?),
                "limit" => {
                    let limit = text.parse().ok().filter(|n| (1..=MAX_LIST).contains(n));
                    asked.limit = limit.ok_or_else(|| wrong("1 to 1000 is expected"))?;
                }
                "wait" => asked.wait = number()?.min(MAX_WAIT),
                _ => {
                    return Err(wrong(
                        "there are text, severity, vendor, product, on, agent, since, until, before, after, limit and wait",
                    ));
                }
            }
        }
        if asked.before.is_some() && asked.after.is_some() {
            return Err(ApiError::invalid("before and after exclude each other"));
        }
        Ok(asked)
    }
}

#[derive(Serialize)]
struct EventView<'a> {
    row: u64,
    agent: String,
    instance: &'a str,
    id: u64,
    time: f64,
    stored: f64,
    received: f64,
    host: &'a str,
    source: &'a str,
    severity: Option<u8>,
    vendor: Option<&'a str>,
    product: Option<&'a str>,
    version: Option<&'a str>,
    signature: Option<&'a str>,
    name: Option<&'a str>,
    line: &'a str,
}

#[derive(Serialize)]
struct List<'a> {
    events: Vec<EventView<'a>>,
    next: Option<u64>,
}

pub(super) async fn list(
    State(app): Shared,
    who: Who,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer {
    let mut asked = Asked::read(query)?;
    if !asked.on.is_empty() || !asked.agents.is_empty() {
        asked.filter.instances = Some(instances(&app, &who, &asked.on, &asked.agents)?);
    } else if let Some(keys) = app.registry.scope_keys(who.scope()) {
        asked.filter.instances = Some(of(keys));
    }
    let Asked { filter, limit, .. } = &asked;
    let page = match asked.after {
        None => search::before(&app, filter, asked.before.unwrap_or(u64::MAX), *limit).await?,
        Some(after) => {
            let deadline = Instant::now() + Duration::from_secs(asked.wait);
            let mut newest = app.cef.newest();
            let mut stop = app.stop.clone();
            let mut after = after;
            loop {
                newest.borrow_and_update();
                let page = search::after(&app, filter, after, *limit).await?;
                if !page.found.is_empty() || Instant::now() >= deadline || *stop.borrow() {
                    break page;
                }
                after = page.next.unwrap_or(after);
                tokio::select! {
                    _ = timeout_at(deadline, newest.changed()) => {}
                    () = stopped(&mut stop) => {}
                }
            }
        }
    };
    let events = page.found.iter().map(|one| view(&app, one)).collect();
    Ok(json(&List {
        events,
        next: page.next,
    }))
}

/// Those that are meant; where a selector means nobody there is nothing to find.
fn instances(app: &App, who: &Who, on: &[String], names: &[String]) -> Result<Instances, ApiError> {
    let targets = match select(app, who, on, names) {
        Err(e) if e.is_not_found() && names.is_empty() => Vec::new(),
        found => found?,
    };
    Ok(of(targets.into_iter().map(|target| target.key)))
}

fn of(keys: impl IntoIterator<Item = Key>) -> Instances {
    let mut instances = Instances::new();
    for key in keys {
        let of = instances.entry(key.identifier).or_default();
        of.insert(key.instance);
    }
    instances
}

fn view<'a>(app: &App, found: &'a Found) -> EventView<'a> {
    let event = &found.event;
    let header = event.header.as_ref();
    EventView {
        row: found.row,
        // It may be called otherwise by now, or be gone.
        agent: app
            .registry
            .settings(&found.identifier)
            .map_or_else(|| event.agent.clone(), |(name, _)| name),
        instance: &found.instance,
        id: event.id,
        time: event.time,
        stored: event.stored,
        received: found.received,
        host: &event.host,
        source: &event.source,
        severity: event.severity,
        vendor: header.map(|h| h.vendor.as_str()),
        product: header.map(|h| h.product.as_str()),
        version: header.map(|h| h.version.as_str()),
        signature: header.map(|h| h.signature.as_str()),
        name: header.map(|h| h.name.as_str()),
        line: &event.line,
    }
}

pub(super) async fn state(State(app): Shared, who: Who) -> Answer {
    let stored = app.db.call(|store| store.event_state()).await?;
    if !who.scope().is_all() {
        // The rest is about all devices; from here on it follows what comes of its own.
        return Ok(json(&value!({ "newest": stored.newest, "time": now() })));
    }
    let forwarding = app.settings.siem.as_ref().map(|siem| {
        let state = app.cef.forwarding.get();
        let oldest = stored.oldest.max(1);
        let behind = stored
            .newest
            .saturating_sub(stored.sent_through.max(oldest - 1));
        let mut fields = serde_json::to_value(&state).unwrap_or(Value::Null);
        fields["target"] = siem.target.to_string().into();
        fields["severity"] = siem.severity.into();
        fields["sentThrough"] = stored.sent_through.into();
        fields["sent"] = stored.sent.into();
        fields["waiting"] = if stored.oldest == 0 { 0 } else { behind }.into();
        fields["prunedUnsent"] = stored.pruned_unsent.into();
        fields
    });
    Ok(json(&value!({
        "newest": stored.newest,
        "oldest": stored.oldest,
        "bytes": stored.bytes,
        "limitBytes": app.settings.events_bytes,
        "pruned": stored.pruned,
        "time": now(),
        "forwarding": forwarding,
    })))
}

//! What agents have recorded.

use super::agents::resolve;
use super::door::Who;
use super::extract::Query;
use super::{Answer, ApiError, Shared, json};
use crate::store::records::{Order, RecordFilter};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;

/// Records that one request lists.
const MAX_LIST: u32 = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    agent: Option<String>,
    token: Option<String>,
    code: Option<u32>,
    ctime: Option<f64>,
    etime: Option<f64>,
    id: Option<u64>,
    after: Option<u64>,
    before: Option<u64>,
    order: Option<Order>,
    #[serde(default = "default_limit")]
    limit: u32,
}

fn default_limit() -> u32 {
    100
}

/// A record as the API gives it.
#[derive(Serialize)]
struct RecordView<'a> {
    row: u64,
    agent: &'a str,
    instance: &'a str,
    id: u64,
    token: &'a str,
    code: u32,
    etime: f64,
    ctime: f64,
    received: f64,
    data: &'a RawValue,
}

#[derive(Serialize)]
struct History<'a> {
    records: Vec<RecordView<'a>>,
    more: bool,
}

pub(super) async fn list(
    State(app): Shared,
    who: Who,
    Query(query): Query<HistoryQuery>,
) -> Answer {
    if !(1..=MAX_LIST).contains(&query.limit) {
        return Err(ApiError::invalid(format!("limit is 1 to {MAX_LIST}")));
    }
    if [query.ctime, query.etime]
        .into_iter()
        .flatten()
        .any(|t| !t.is_finite())
    {
        return Err(ApiError::invalid("ctime and etime are Unix times"));
    }
    // Who names a place wants to go on from there.
    let order = query
        .order
        .unwrap_or(if query.id.is_some() || query.after.is_some() {
            Order::Asc
        } else {
            Order::Desc
        });
    let mut filter = RecordFilter {
        token: query.token,
        code: query.code,
        ctime: query.ctime,
        etime: query.etime,
        id: query.id,
        after: query.after,
        before: query.before,
        order,
        limit: query.limit,
        only: who.only(&app.registry),
        ..RecordFilter::default()
    };
    if let Some(name) = &query.agent {
        let targets = resolve(&app, &who, name)?;
        let Some(first) = targets.first() else {
            return Ok(json(&History {
                records: Vec::new(),
                more: false,
            }));
        };
        filter.identifier = Some(first.key.identifier.clone());
        // One that is alone is named like that, and found faster.
        if name.contains('/') || targets.len() == 1 {
            filter.instance = Some(first.key.instance.clone());
        }
    }
    let (found, more) = app.db.call(move |store| store.records(&filter)).await?;
    let mut names: HashMap<&str, String> = HashMap::new();
    for one in &found {
        names
            .entry(&one.identifier)
            .or_insert_with(|| app.registry.name(&one.identifier));
    }
    let records = found
        .iter()
        .map(|one| RecordView {
            row: one.row,
            agent: names
                .get(one.identifier.as_str())
                .map_or("", String::as_str),
            instance: &one.instance,
            id: one.record.id,
            token: &one.record.token,
            code: one.record.code,
            etime: one.record.etime,
            ctime: one.record.ctime,
            received: one.received,
            data: &one.record.data,
        })
        .collect();
    Ok(json(&History { records, more }))
}

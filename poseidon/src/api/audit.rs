//! The audit log.

use super::extract::Query;
use super::{Answer, ApiError, Shared, object};
use crate::store::doors::ActFilter;
use axum::extract::State;
use serde::Deserialize;

/// Acts that one request lists.
const MAX_LIST: u32 = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    since: Option<f64>,
    who: Option<String>,
    act: Option<String>,
    on: Option<String>,
    before: Option<u64>,
    #[serde(default = "limit")]
    limit: u32,
}

fn limit() -> u32 {
    100
}

pub(super) async fn list(State(app): Shared, Query(query): Query<ListQuery>) -> Answer {
    if !(1..=MAX_LIST).contains(&query.limit) {
        return Err(ApiError::invalid(format!("limit is 1 to {MAX_LIST}")));
    }
    if query.since.is_some_and(|since| !since.is_finite()) {
        return Err(ApiError::invalid("since is a Unix time"));
    }
    let filter = ActFilter {
        since: query.since,
        who: query.who,
        act: query.act,
        on: query.on,
        before: query.before,
        limit: query.limit,
    };
    Ok(object("acts", &app.audit.find(filter).await?))
}

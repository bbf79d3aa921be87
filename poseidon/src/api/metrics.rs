//! What heartbeats said over time.

use super::agents::one;
use super::extract::{Path, Query};
use super::{Answer, ApiError, Shared, json};
use crate::metrics::{self, FINE};
use crate::time::now;
use axum::extract::State;
use serde_json::{Value, json as value};
use std::collections::HashSet;

/// Points of one series, unless it is said.
const POINTS: i64 = 240;
const MAX_POINTS: i64 = 1500;
/// How far back is looked without `since`, in seconds.
const SPAN: f64 = 86_400.0;

#[allow(clippy::cast_possible_truncation)]
pub(super) async fn show(
    State(app): Shared,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer {
    let (mut names, mut since, mut until, mut points) = (HashSet::new(), None, now(), POINTS);
    for (field, text) in query {
        let wrong = |what: &str| ApiError::invalid(format!("{field}={text}: {what}"));
        let time = || {
            let time = text.parse::<f64>().ok().filter(|t| (0.0..1e11).contains(t));
            time.ok_or_else(|| wrong("a Unix time is expected"))
        };
        match field.as_str() {
            "name" => {
                names.insert(text);
            }
            "since" => since = Some(time()?),
            "until" => until = time()?,
            "points" => {
                let number = text.parse().ok().filter(|n| (1..=MAX_POINTS).contains(n));
                points = number.ok_or_else(|| wrong("1 to 1500 is expected"))?;
            }
            _ => return Err(wrong("there are name, since, until and points")),
        }
    }
    let from = since.unwrap_or(until - SPAN).max(0.0) as i64;
    let until = until as i64;
    let fine = i64::from(FINE);
    // So many whole minutes that no more points come out than are wanted.
    let step = (until - from).max(0) / (points * fine) * fine + fine;
    let target = one(&app, &name)?;
    let lines = metrics::lines(&app, &target.key, &names, (from, until), step).await?;
    let lines: Vec<Value> = lines
        .into_iter()
        .map(|line| value!({"name": line.name, "unit": line.unit, "points": line.points}))
        .collect();
    Ok(json(
        &value!({"since": from, "until": until, "step": step, "metrics": lines}),
    ))
}

//! Jobs under a caller's own token, so that a request whose answer was lost can be made again.

use super::super::door::Who;
use super::super::{Answer, ApiError, object, token};
use super::{created, targets};
use crate::agents::order::{self, Order, OrderError};
use crate::jobs::{JobView, is_same};
use crate::server::App;
use crate::store::{Job, StoreError};
use axum::response::Response;
use std::collections::HashMap;
use std::sync::Arc;

/// Makes jobs under the caller's own token. However often that is asked for, they are made once: the store takes no token
/// twice, and of the jobs of one request all or none.
pub(super) async fn create_as(
    app: &Arc<App>,
    who: &Who,
    token: &str,
    agents: &[String],
    order: &Order,
) -> Answer {
    token::check("token", token)?;
    // First of all: a device may have gone since.
    if let Some(jobs) = made(app, who, token, agents, order).await? {
        return Ok(again(who, &jobs));
    }
    let targets = targets(app, who, agents, order.expires.is_some())?;
    let tokens = (0..targets.len()).map(|n| token::nth(token, n)).collect();
    match order::give_as(app, order, &targets, tokens).await {
        Ok(live) => Ok(created(who, &live)),
        // Somebody was faster by a moment.
        Err(OrderError::Store(StoreError::TokenTaken)) => {
            let jobs = made(app, who, token, agents, order).await?;
            let jobs = jobs.ok_or_else(|| token::taken("token", token))?;
            Ok(again(who, &jobs))
        }
        Err(e) => Err(e.into()),
    }
}

/// The jobs that were made under this token, where they are what is asked for; an error where they are others.
async fn made(
    app: &App,
    who: &Who,
    token: &str,
    names: &[String],
    order: &Order,
) -> Result<Option<Vec<Job>>, ApiError> {
    let mut jobs = Vec::new();
    while let Some(job) = app.jobs.get(&token::nth(token, jobs.len())).await? {
        jobs.push(job);
    }
    if jobs.is_empty() {
        return Ok(None);
    }
    let same = are_of(app, &jobs, names)
        && jobs.iter().all(|job| {
            who.sees(&app.registry, &job.key())
                && job.kind == order.kind
                && job.queue == order.expires.is_some()
                && is_same(&job.request, &order.request)
        });
    if same {
        Ok(Some(jobs))
    } else {
        Err(token::taken("token", token))
    }
}

/// Whether each job is for one of the names, and each name has one. By the identifiers: after a crash Poseidon may know
/// a job before it knows the instance again. A name means what it meant when the jobs were made: who repeats a request
/// does not know of a new one.
fn are_of(app: &App, jobs: &[Job], names: &[String]) -> bool {
    let then: HashMap<&str, &str> = jobs
        .iter()
        .map(|job| (job.agent.as_str(), job.identifier.as_str()))
        .collect();
    // Of each identifier how instances begin that are named, and whether there was one.
    let mut meant: HashMap<String, Vec<(&str, bool)>> = HashMap::new();
    for name in names {
        let (name, instance) = name.split_once('/').unwrap_or((name, ""));
        let identifier = then.get(name).map(|&identifier| identifier.to_owned());
        let Some(identifier) = identifier.or_else(|| app.registry.identifier(name)) else {
            return false;
        };
        meant.entry(identifier).or_default().push((instance, false));
    }
    for job in jobs {
        let Some(instances) = meant.get_mut(&job.identifier) else {
            return false;
        };
        let mut is_named = false;
        for (instance, found) in instances {
            if job.instance.starts_with(*instance) {
                *found = true;
                is_named = true;
            }
        }
        if !is_named {
            return false;
        }
    }
    meant.values().flatten().all(|(_, found)| *found)
}

/// The answer to a request that was made before.
fn again(who: &Who, jobs: &[Job]) -> Response {
    for job in jobs {
        who.note(&format!(
            "{}/{}: job {}, as before",
            job.agent, job.instance, job.token
        ));
    }
    let views: Vec<JobView<'_>> = jobs.iter().map(JobView::from).collect();
    object("jobs", &views)
}

//! Calls about files of devices.

use super::agents::resolve;
use super::door::Who;
use super::extract::{Path, Query};
use super::{Answer, ApiError, Shared};
use crate::agents::pull::{Offer, Pull, PullError};
use crate::agents::registry::Target;
use crate::cli::outcome;
use crate::jobs::JobView;
use crate::server::App;
use crate::store::Job;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use triton::message::payload::{self, ErrorCode};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GetQuery {
    path: String,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    follow: bool,
}

/// Streams a file of a device.
pub(super) async fn get(
    State(app): Shared,
    who: Who,
    Path(name): Path<String>,
    Query(query): Query<GetQuery>,
    headers: HeaderMap,
) -> Answer {
    let target = one(&app, &who, &name)?;
    let (pull, offer) = Pull::begin(&app, target, &query.path, query.offset, query.follow).await?;
    who.note(&format!("job {}", pull.token()));
    let tag = tag(&offer);
    let wanted = headers.get(header::IF_MATCH);
    if wanted.is_some_and(|wanted| wanted != "*" && wanted.as_bytes() != tag.as_bytes()) {
        let text = format!("{} is another file than before: it has changed", query.path);
        return Err(ApiError::new(
            StatusCode::PRECONDITION_FAILED,
            "changed",
            text,
        ));
    }
    Ok(answer(pull, &offer, &tag, &query.path))
}

/// The one instance that a name stands for, which is up.
fn one(app: &App, who: &Who, name: &str) -> Result<Target, ApiError> {
    let mut targets = resolve(app, who, name)?;
    let several = targets.len() > 1;
    if several {
        // Plain Tritons of earlier connections, say, are no reason to ask.
        targets.retain(|target| target.connection.is_some());
    }
    match <[Target; 1]>::try_from(targets) {
        Ok([target]) if target.connection.is_some() => Ok(target),
        Ok([target]) => Err(ApiError::offline(format!(
            "{}/{} is down",
            target.name, target.key.instance
        ))),
        Err(none) if none.is_empty() => Err(ApiError::offline(if several {
            format!("all instances of {name} are down")
        } else {
            format!("{name} has never connected")
        })),
        Err(several) => {
            let all: Vec<_> = several
                .iter()
                .map(|target| format!("{}/{}", target.name, target.key.instance))
                .collect();
            Err(ApiError::conflict(format!(
                "{name} has {} instances, name one of them: {}",
                all.len(),
                all.join(", ")
            )))
        }
    }
}

/// What is another for a file that has changed.
fn tag(offer: &Offer) -> String {
    format!("\"{}-{}\"", offer.size, offer.mtime.unwrap_or(0.0))
}

fn answer(pull: Pull, offer: &Offer, tag: &str, path: &str) -> Response {
    let token = pull.token().to_owned();
    let pieces = futures_util::stream::unfold(Some(pull), |pull| async move {
        let mut pull = pull?;
        match pull.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(pull))),
            Ok(None) => None,
            Err(e) => {
                pull.give_up(&e).await;
                log::warn!("the file of job {} breaks off: {e}", pull.token());
                Some((Err(std::io::Error::other(e.to_string())), None))
            }
        }
    });
    let file = path.rsplit('/').next().unwrap_or("");
    let name = utf8_percent_encode(file, NON_ALPHANUMERIC);
    let disposition = format!("attachment; filename*=UTF-8''{name}");
    let mut response = Body::from_stream(pieces).into_response();
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::ETAG, tag.to_owned()),
        (HeaderName::from_static("triton-job"), token),
        (
            HeaderName::from_static("triton-size"),
            offer.size.to_string(),
        ),
        (
            HeaderName::from_static("triton-mode"),
            offer.mode.clone().unwrap_or_default(),
        ),
        (
            HeaderName::from_static("triton-mtime"),
            offer.mtime.map(|t| t.to_string()).unwrap_or_default(),
        ),
    ];
    for (name, value) in headers {
        // What the device does not tell, or what no header can carry, is left out.
        if let Ok(value) = HeaderValue::try_from(value)
            && !value.is_empty()
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

impl From<PullError> for ApiError {
    fn from(e: PullError) -> Self {
        match e {
            PullError::Order(e) => e.into(),
            PullError::Ended(job) => ended(&job),
            PullError::Busy => Self::busy(e.to_string()),
            PullError::Stopping => Self::busy("the server stops"),
            PullError::Late(wait) => Self::busy(format!(
                "the device has not begun within {} s: it may have other jobs to do first, see 'poseidon jobs'",
                wait.as_secs()
            )),
            PullError::Wrong(what) => Self::new(
                StatusCode::BAD_GATEWAY,
                "agent",
                format!("the device sends nonsense: {what}"),
            ),
        }
    }
}

/// A job that ended before there was anything to hand out, in the device's words.
fn ended(job: &Job) -> ApiError {
    let error = job
        .error
        .as_ref()
        .and_then(|error| serde_json::from_str::<payload::Error>(error.get()).ok());
    let Some(error) = error else {
        let view = serde_json::to_value(JobView::from(job)).unwrap_or_default();
        return ApiError::conflict(format!(
            "the device ended the job without a file: {}",
            outcome(&view)
        ));
    };
    let text = error.message;
    match error.code {
        ErrorCode::NotFound => ApiError::not_found(text),
        ErrorCode::Invalid => ApiError::invalid(text),
        ErrorCode::Busy => ApiError::busy(text),
        ErrorCode::Io => ApiError::new(StatusCode::BAD_GATEWAY, "agent", text),
        ErrorCode::Refused => ApiError::new(StatusCode::FORBIDDEN, "refused", text),
        ErrorCode::Other(word) if word == "offline" => ApiError::offline(text),
        ErrorCode::UnknownType => ApiError::conflict(format!(
            "this agent cannot hand out files, it is too old: {text}"
        )),
        code => ApiError::conflict(format!("{code}: {text}")),
    }
}

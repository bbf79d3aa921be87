//! Calls about tokens.

use super::door::{Who, no_store};
use super::extract::Path;
use super::{Answer, ApiError, Shared, json, object, read};
use crate::doors::{Principal, Role, TokenError};
use crate::time::now;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::{Deserialize, Serialize};

/// Longest life of a token that ends, in seconds: ten years.
const MAX_EXPIRY: u64 = 315_360_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Add {
    name: String,
    role: Role,
    #[serde(default)]
    on: Vec<String>,
    expires_seconds: Option<u64>,
}

#[derive(Serialize)]
struct TokenView<'a> {
    name: &'a str,
    role: Role,
    on: &'a [String],
    created: f64,
    expires: Option<f64>,
}

impl<'a> From<&'a Principal> for TokenView<'a> {
    fn from(principal: &'a Principal) -> Self {
        Self {
            name: &principal.name,
            role: principal.role,
            on: &principal.on,
            created: principal.created,
            expires: principal.expires,
        }
    }
}

#[derive(Serialize)]
struct Added<'a> {
    token: &'a str,
    #[serde(flatten)]
    of: TokenView<'a>,
}

pub(super) async fn list(State(app): Shared) -> Answer {
    let tokens = app.doors.tokens();
    let views: Vec<_> = tokens.iter().map(|t| TokenView::from(&**t)).collect();
    Ok(object("tokens", &views))
}

pub(super) async fn add(State(app): Shared, who: Who, body: Body) -> Answer {
    let Add {
        name,
        role,
        on,
        expires_seconds,
    } = read(body).await?;
    if expires_seconds.is_some_and(|seconds| !(1..=MAX_EXPIRY).contains(&seconds)) {
        let text = format!("expiresSeconds is 1 to {MAX_EXPIRY}");
        return Err(ApiError::invalid(text));
    }
    #[allow(clippy::cast_precision_loss)]
    let expires = expires_seconds.map(|seconds| now() + seconds as f64);
    let (token, principal) = app.doors.add(&name, role, on, expires).await?;
    who.note(&format!("made {}", principal.name));
    let added = Added {
        token: &token,
        of: TokenView::from(&*principal),
    };
    Ok(no_store(
        (StatusCode::CREATED, json(&added)).into_response(),
    ))
}

pub(super) async fn remove(State(app): Shared, Path(name): Path<String>) -> Answer {
    app.doors.remove(&name).await?;
    Ok(json(&serde_json::json!({})))
}

impl From<TokenError> for ApiError {
    fn from(e: TokenError) -> Self {
        match e {
            TokenError::Invalid(reason) => Self::invalid(reason),
            TokenError::Taken => {
                Self::conflict("there is a token of this name: remove it first, or take another")
            }
            TokenError::Full => Self::full("there are too many tokens: remove some"),
            TokenError::NotFound => Self::not_found("there is no such token"),
            TokenError::Store(e) => e.into(),
        }
    }
}

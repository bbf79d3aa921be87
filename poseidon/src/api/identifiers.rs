//! Calls about identifiers.

use super::door::Who;
use super::extract::Path;
use super::{Answer, ApiError, Shared, json, object, read};
use crate::agents::identifiers::{IdentifierError, Pin};
use crate::agents::settings::{Heartbeat, Settings};
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    name: Option<String>,
    /// Whether the key that the device has shown is pinned; it is, unless this says false.
    pin: Option<bool>,
    /// The id of the key to pin, where several were shown.
    key: Option<String>,
    attributes: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Register {
    identifier: String,
    name: Option<String>,
    attributes: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Set {
    name: Option<String>,
    /// One without a value goes.
    attributes: Option<BTreeMap<String, Option<String>>>,
    /// `null` is not the same as absent.
    #[serde(default, deserialize_with = "given")]
    heartbeat_seconds: Heartbeat,
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Heartbeat, D::Error> {
    Option::deserialize(deserializer).map(Heartbeat::Is)
}

pub(super) async fn pending(State(app): Shared) -> Answer {
    Ok(object("pending", &app.registry.pending()))
}

pub(super) async fn approve(
    State(app): Shared,
    who: Who,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    let approve: Approve = read(body).await?;
    let pin = Pin {
        none: approve.pin == Some(false),
        id: approve.key,
    };
    let settings = Settings {
        name: approve.name,
        attributes: approve.attributes,
        ..Settings::default()
    };
    let identifier = app.registry.approve(&app.db, &id, settings, &pin).await?;
    who.note(&format!("{} as {}", identifier.id, identifier.name));
    log::info!(
        "identifier {} is approved as {}",
        identifier.id,
        identifier.name
    );
    Ok(object("identifier", &identifier))
}

pub(super) async fn refuse(State(app): Shared, Path(id): Path<String>) -> Answer {
    let identifier = app.registry.refuse(&app.db, &id).await?;
    log::info!("identifier {} is refused", identifier.id);
    Ok(object("identifier", &identifier))
}

pub(super) async fn list(State(app): Shared) -> Answer {
    Ok(object("identifiers", &app.registry.identifiers()))
}

pub(super) async fn register(State(app): Shared, who: Who, body: Body) -> Answer {
    let Register {
        identifier,
        name,
        attributes,
    } = read(body).await?;
    let settings = Settings {
        name,
        attributes,
        ..Settings::default()
    };
    let registered = app.registry.register(&app.db, &identifier, settings).await;
    let (identifier, warning) = registered?;
    who.note(&format!("{} as {}", identifier.id, identifier.name));
    log::info!(
        "identifier {} is registered as {}",
        identifier.id,
        identifier.name
    );
    let mut body = serde_json::json!({"identifier": identifier});
    if let Some(warning) = warning {
        body["warning"] = warning.into();
    }
    Ok((StatusCode::CREATED, json(&body)).into_response())
}

pub(super) async fn set(
    State(app): Shared,
    who: Who,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    let set: Set = read(body).await?;
    let settings = Settings {
        name: set.name,
        changes: set.attributes.unwrap_or_default(),
        heartbeat: set.heartbeat_seconds,
        ..Settings::default()
    };
    let identifier = app.registry.set(&app.db, &id, settings).await?;
    who.note(&format!("{} as {}", identifier.id, identifier.name));
    log::info!(
        "what is said of identifier {}, {}, is changed",
        identifier.id,
        identifier.name
    );
    Ok(object("identifier", &identifier))
}

pub(super) async fn forget(State(app): Shared, Path(id): Path<String>) -> Answer {
    let hash = app.registry.forget(&app.db, &id).await?;
    app.metrics.forget_all(&hash);
    super::agents::abandon(&app, &hash, None).await?;
    Ok(json(&serde_json::json!({})))
}

impl From<IdentifierError> for ApiError {
    fn from(e: IdentifierError) -> Self {
        match e {
            IdentifierError::NotFound => Self::not_found("there is no such identifier"),
            IdentifierError::Ambiguous => {
                Self::conflict("this ID fits several identifiers: give more of its digits")
            }
            IdentifierError::Invalid(reason) => Self::invalid(reason),
            IdentifierError::Public(reason) => Self::conflict(reason),
            IdentifierError::Waits => Self::conflict(
                "this identifier waits for approval: 'poseidon approve' lets it in, and takes a name and attributes",
            ),
            IdentifierError::LastKey => Self::conflict(
                "it is the last pinned key, and without any whoever has the identifier would get in: pin the right one \
                 first ('poseidon trust accept'). 'poseidon trust reset' forgets them all if that is meant, 'poseidon \
                 forget --identifier' is for a device that is gone for good",
            ),
            IdentifierError::Store(e) => e.into(),
        }
    }
}

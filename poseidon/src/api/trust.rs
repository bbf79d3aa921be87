//! Calls about keys: Poseidon's own, and those of the devices.

use super::door::Who;
use super::extract::Path;
use super::{Answer, ApiError, Shared, identifier, json, read};
use crate::keyring::Own;
use axum::body::Body;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json as value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Accept {
    /// The id of a key that was shown, or a whole key. Absent: the only one that was shown.
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    /// The id of a pinned key, or the whole key.
    key: String,
}

fn own(own: &Own) -> Value {
    let key = own.key.public();
    let previous = own.keys.iter().rev().filter_map(|proof| {
        let key: triton::message::sign::PublicKey = proof.previous.parse().ok()?;
        Some(key.id().to_string())
    });
    value!({
        "keyId": key.id().to_string(),
        "publicKey": key.to_string(),
        "previous": previous.collect::<Vec<_>>(),
    })
}

pub(super) async fn list(State(app): Shared) -> Answer {
    let body = value!({
        "poseidon": own(&app.keyring.own()),
        "identifiers": app.registry.all_keys(),
    });
    Ok(json(&body))
}

pub(super) async fn rotate(State(app): Shared) -> Answer {
    let shared = app.clone();
    let rotated = tokio::task::spawn_blocking(move || shared.keyring.rotate()).await;
    let new = rotated.unwrap_or_else(|e| Err(std::io::Error::other(e)));
    let new = new.map_err(|e| ApiError::file(&e))?;
    log::warn!("Poseidon has a new key, {}", new.key.public().id());
    // They come back at once and are shown how the new key follows the old one.
    app.registry.close_all(None, "trust has changed");
    Ok(json(&value!({ "poseidon": own(&new) })))
}

pub(super) async fn show(State(app): Shared, who: Who, Path(name): Path<String>) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    Ok(json(&app.registry.keys_of(&hash)))
}

pub(super) async fn accept(
    State(app): Shared,
    who: Who,
    Path(name): Path<String>,
    body: Body,
) -> Answer {
    let accept: Accept = read(body).await?;
    // A public one.
    who.note(accept.key.as_deref().unwrap_or("the only one"));
    let hash = identifier(&app, &who, &name)?;
    let keys = app
        .registry
        .accept_key(&app.db, &hash, accept.key.as_deref())
        .await?;
    log::warn!("a key of {name} is pinned: no other gets in any more");
    Ok(json(&keys))
}

pub(super) async fn remove(
    State(app): Shared,
    who: Who,
    Path(name): Path<String>,
    body: Body,
) -> Answer {
    let Remove { key } = read(body).await?;
    who.note(&key);
    let hash = identifier(&app, &who, &name)?;
    let keys = app.registry.remove_key(&app.db, &hash, &key).await?;
    log::warn!("the key {key:?} of {name} is no longer pinned");
    Ok(json(&keys))
}

pub(super) async fn reset(State(app): Shared, who: Who, Path(name): Path<String>) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    let keys = app.registry.reset_keys(&app.db, &hash).await?;
    log::warn!("the keys of {name} are forgotten");
    Ok(json(&keys))
}

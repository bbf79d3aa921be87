//! Calls about data that identifiers are given.

use super::blobs::{blocking, length, next, receive};
use super::door::Who;
use super::extract::{Path, Query};
use super::{Answer, ApiError, Shared, identifier, json, object, whole};
use crate::blobs::sha256;
use crate::data::{DataError, VALUE_BYTES, check_key};
use crate::pieces;
use crate::store::named::Content;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use serde::Deserialize;

/// A large one is read from the disk in such pieces.
const PIECE: usize = 256 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PutQuery {
    #[serde(default)]
    secret: bool,
}

pub(super) async fn list(State(app): Shared, who: Who, Path(name): Path<String>) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    Ok(object("data", &app.data.list(&hash).await?))
}

pub(super) async fn put(
    State(app): Shared,
    who: Who,
    Path((name, key)): Path<(String, String)>,
    Query(PutQuery { secret }): Query<PutQuery>,
    headers: HeaderMap,
    mut body: Body,
) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    check_key(&key).map_err(ApiError::invalid)?;
    let mut value = Vec::new();
    while value.len() <= VALUE_BYTES {
        match next(&mut body).await? {
            Some(data) => value.extend_from_slice(&data),
            None => break,
        }
    }
    let (content, of) = if value.len() <= VALUE_BYTES {
        let of = (sha256(&value), value.len() as u64);
        (Content::Value(value), of)
    } else if secret {
        return Err(ApiError::too_large(format!(
            "a secret has at most {VALUE_BYTES} bytes"
        )));
    } else {
        let (blobs, size) = (app.blobs.clone(), length(&headers));
        let upload = blocking(move || blobs.upload(None, size)).await?;
        let of = receive(upload, value, body).await?;
        (Content::Blob(of.0.clone()), of)
    };
    let put = async move {
        let entry = app.data.put(&hash, &key, secret, content, of).await?;
        log::info!("{name} was given {key}");
        Ok(json(&entry))
    };
    whole(put).await?
}

pub(super) async fn show(
    State(app): Shared,
    who: Who,
    Path((name, key)): Path<(String, String)>,
) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    check_key(&key).map_err(ApiError::invalid)?;
    let found = app.data.show(&hash, &key).await?;
    let (entry, content) =
        found.ok_or_else(|| ApiError::not_found(format!("{name} was not given {key}")))?;
    let content = content.ok_or_else(|| {
        ApiError::new(
            StatusCode::FORBIDDEN,
            "refused",
            format!("{key} is a secret: only the devices of {name} are given it"),
        )
    })?;
    let (body, len) = match content {
        Content::Value(value) => {
            let len = value.len() as u64;
            (Body::from(value), len)
        }
        // What is encrypted is a secret, which was refused above.
        Content::Sealed(_) => (Body::empty(), 0),
        Content::Blob(blob) => {
            let blobs = app.blobs.clone();
            // Open, it is read to its end whatever becomes of its name.
            let file = blocking(move || Ok(blobs.open(&blob)?)).await?;
            (Body::from_stream(pieces::of_file(file, PIECE)), entry.size)
        }
    };
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::CONTENT_LENGTH, len.to_string()),
    ];
    Ok((headers, body).into_response())
}

pub(super) async fn remove(
    State(app): Shared,
    who: Who,
    Path((name, key)): Path<(String, String)>,
) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    check_key(&key).map_err(ApiError::invalid)?;
    if !app.data.delete(&hash, &key).await? {
        return Err(ApiError::not_found(format!("{name} was not given {key}")));
    }
    log::info!("{key} was taken from {name}");
    Ok(json(&serde_json::json!({})))
}

impl From<DataError> for ApiError {
    fn from(e: DataError) -> Self {
        match e {
            DataError::Unknown => Self::not_found("the identifier was just forgotten"),
            DataError::IsSecret => Self::conflict(
                "under this name there is a secret: put it as a secret again, or remove it first",
            ),
            DataError::Full(text) => Self::full(text),
            DataError::Store(e) => e.into(),
        }
    }
}

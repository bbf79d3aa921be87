//! Calls about content by its hash.

use super::extract::Path;
use super::{Answer, ApiError, Shared, json};
use crate::blobs::{BlobError, Blobs, Upload, is_hash};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use http_body_util::BodyExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// So much is gathered before it is written.
const PIECE: usize = 256 << 10;
/// A body of which nothing comes for so long is given up.
const SILENCE: Duration = Duration::from_mins(1);

pub(super) async fn put(
    State(app): Shared,
    Path(hash): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (blobs, expected) = (app.blobs.clone(), hash.clone());
    let size = length(&headers);
    let upload = blocking(move || blobs.upload(Some(&expected), size)).await?;
    let is_new = !upload.is_known();
    let (sha256, size) = receive(upload, Vec::new(), body).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let answer = json(&serde_json::json!({"sha256": sha256, "size": size}));
    Ok((status, answer).into_response())
}

pub(super) async fn head(State(app): Shared, Path(hash): Path<String>) -> Answer {
    if !is_hash(&hash) {
        return Err(BlobError::NoHash.into());
    }
    let blobs = app.blobs.clone();
    // Who asks is about to refer to it.
    let len = blocking(move || Ok(blobs.keep(&hash)?)).await?;
    let len = len.ok_or_else(|| ApiError::not_found("there is no such blob"))?;
    Ok(([(header::CONTENT_LENGTH, len)], Body::empty()).into_response())
}

/// What the head says of the length of the body.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Writes what was `read` already and the rest of a body; hash and size.
pub(super) async fn receive(
    mut upload: Upload,
    read: Vec<u8>,
    mut body: Body,
) -> Result<(String, u64), ApiError> {
    let mut piece = read;
    while let Some(data) = next(&mut body).await? {
        piece.extend_from_slice(&data);
        if piece.len() >= PIECE {
            let full = std::mem::take(&mut piece);
            upload = blocking(move || {
                upload.write(&full)?;
                Ok(upload)
            })
            .await?;
        }
    }
    blocking(move || {
        upload.write(&piece)?;
        upload.finish()
    })
    .await
}

/// The next piece of a body; `None` at its end.
pub(super) async fn next(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    loop {
        match timeout(SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Ok(Some(Err(e))) => {
                return Err(ApiError::invalid(format!("the body did not arrive: {e}")));
            }
            Ok(None) => return Ok(None),
            Err(_) => {
                return Err(ApiError::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "invalid",
                    format!("nothing of the body came for {} s", SILENCE.as_secs()),
                ));
            }
        }
    }
}

/// Stores what is in memory; its hash.
pub(super) async fn store(blobs: &Arc<Blobs>, bytes: Bytes) -> Result<String, ApiError> {
    let blobs = blobs.clone();
    blocking(move || blobs.put(&bytes)).await
}

/// All of a small blob.
pub(super) async fn load(blobs: &Arc<Blobs>, hash: &str, limit: u64) -> Result<Vec<u8>, ApiError> {
    let (blobs, hash) = (blobs.clone(), hash.to_owned());
    blocking(move || Ok(blobs.read(&hash, limit)?)).await
}

/// Runs what blocks where it may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(e) => Err(BlobError::Io(std::io::Error::other(e)).into()),
    }
}

impl From<BlobError> for ApiError {
    fn from(e: BlobError) -> Self {
        let text = e.to_string();
        match e {
            BlobError::NoHash | BlobError::Wrong(_) => Self::invalid(text),
            BlobError::TooLarge(_) => Self::too_large(text),
            BlobError::Full(_) => Self::full(text),
            BlobError::Busy => Self::busy(text),
            BlobError::Io(_) => {
                log::error!("{text}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "io", text)
            }
        }
    }
}

//! Calls about the scripts of an identifier.

use super::blobs::{blocking, load, store};
use super::door::Who;
use super::extract::{Path, Query};
use super::{Answer, ApiError, Shared, bytes, identifier, json, object, read, whole};
use crate::blobs::{BlobError, is_hash};
use crate::repositories::manifest::{
    MAX_FILES, SCRIPT_BYTES, check_path, default_mode, parse_mode,
};
use crate::repositories::{Edit, EditError, Edited, NewScript};
use crate::server::App;
use crate::store::repositories::{Revision, Script, Which};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse as _;
use serde::{Deserialize, Serialize};

/// A revision with its files, as the API gives it.
#[derive(Serialize)]
struct RepositoryView<'a> {
    name: &'a str,
    revision: Option<&'a str>,
    number: u64,
    parent: Option<&'a str>,
    created: Option<f64>,
    comment: &'a str,
    bytes: u64,
    files: &'a [Script],
}

impl<'a> RepositoryView<'a> {
    fn new(name: &'a str, revision: Option<&'a Revision>, files: &'a [Script]) -> Self {
        Self {
            name,
            revision: revision.map(|r| r.revision.as_str()),
            number: revision.map_or(0, |r| r.number),
            parent: revision.and_then(|r| r.parent.as_deref()),
            created: revision.map(|r| r.created),
            comment: revision.map_or("", |r| r.comment.as_str()),
            bytes: revision.map_or(0, |r| r.bytes),
            files,
        }
    }
}

#[derive(Serialize)]
struct EditedView<'a> {
    changed: bool,
    repository: RepositoryView<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileQuery {
    revision: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PutQuery {
    mode: Option<String>,
    #[serde(default)]
    comment: String,
    parent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveQuery {
    #[serde(default)]
    comment: String,
    parent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    files: Vec<WholeFile>,
    #[serde(default)]
    comment: String,
    parent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WholeFile {
    path: String,
    sha256: String,
    mode: Option<String>,
    size: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revert {
    revision: Named,
    #[serde(default)]
    comment: String,
    parent: Option<String>,
}

/// A revision as a body names it: answers have its number as one.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a revision is its id, a text of 16 hex digits, or its number"
)]
enum Named {
    Number(u64),
    Text(String),
}

pub(super) async fn show(State(app): Shared, who: Who, Path(name): Path<String>) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    let found = app.repositories.find(&hash, Which::Current).await?;
    let (revision, files) = found.map_or((None, Vec::new()), |(r, files)| (Some(r), files));
    Ok(json(&RepositoryView::new(&name, revision.as_ref(), &files)))
}

pub(super) async fn history(State(app): Shared, who: Who, Path(name): Path<String>) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    let revisions = app.repositories.history(&hash).await?;
    Ok(object("revisions", &revisions))
}

pub(super) async fn revision(
    State(app): Shared,
    who: Who,
    Path((name, wanted)): Path<(String, String)>,
) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    let (revision, files) = find(&app, &hash, &wanted).await?;
    Ok(json(&RepositoryView::new(&name, Some(&revision), &files)))
}

pub(super) async fn file(
    State(app): Shared,
    who: Who,
    Path((name, path)): Path<(String, String)>,
    Query(query): Query<FileQuery>,
) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    check_path(&path).map_err(ApiError::invalid)?;
    let files = if let Some(wanted) = &query.revision {
        find(&app, &hash, wanted).await?.1
    } else {
        let current = app.repositories.current(&hash).await?;
        current.map_or_else(Vec::new, |manifest| manifest.files)
    };
    let file = files.iter().find(|f| f.path == path).ok_or_else(|| {
        ApiError::not_found(format!(
            "there is no script {path} in this revision of {name}"
        ))
    })?;
    let content = load(&app.blobs, &file.sha256, SCRIPT_BYTES).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::ETAG, format!("\"{}\"", file.sha256)),
    ];
    Ok((headers, content).into_response())
}

pub(super) async fn put(
    State(app): Shared,
    who: Who,
    Path((name, path)): Path<(String, String)>,
    Query(query): Query<PutQuery>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    check_path(&path).map_err(ApiError::invalid)?;
    let mode = mode(query.mode.as_deref())?;
    #[allow(clippy::cast_possible_truncation)]
    let content = bytes(body, &headers, SCRIPT_BYTES as usize).await?;
    let default = default_mode(&content);
    let size = content.len() as u64;
    let file = Script {
        path,
        sha256: store(&app.blobs, content).await?,
        size,
        mode: default,
    };
    let edit = Edit::Put {
        file,
        mode,
        default,
    };
    let put =
        async move { make(&app, &who, &name, &hash, edit, query.comment, query.parent).await };
    whole(put).await?
}

pub(super) async fn remove(
    State(app): Shared,
    who: Who,
    Path((name, path)): Path<(String, String)>,
    Query(query): Query<RemoveQuery>,
) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    check_path(&path).map_err(ApiError::invalid)?;
    let edit = Edit::Remove(path);
    make(&app, &who, &name, &hash, edit, query.comment, query.parent).await
}

pub(super) async fn replace(
    State(app): Shared,
    who: Who,
    Path(name): Path<String>,
    body: Body,
) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    let Whole {
        files,
        comment,
        parent,
    } = read(body).await?;
    // Before each of them is looked for.
    if files.len() > MAX_FILES {
        return Err(ApiError::invalid(format!(
            "a repository has at most {MAX_FILES} files, and these are {}",
            files.len()
        )));
    }
    let blobs = app.blobs.clone();
    let found = blocking(move || Ok(files.into_iter().map(|f| look_up(&blobs, f)).collect()));
    let found: Result<Vec<NewScript>, ApiError> = found.await?;
    make(
        &app,
        &who,
        &name,
        &hash,
        Edit::Whole(found?),
        comment,
        parent,
    )
    .await
}

pub(super) async fn revert(
    State(app): Shared,
    who: Who,
    Path(name): Path<String>,
    body: Body,
) -> Answer {
    let hash = identifier(&app, &who, &name)?;
    let Revert {
        revision,
        comment,
        parent,
    } = read(body).await?;
    let revision = match revision {
        Named::Number(number) => number.to_string(),
        Named::Text(text) => text,
    };
    let edit = Edit::Revert(which(&revision)?);
    let comment = if comment.is_empty() {
        format!("back to {revision}")
    } else {
        comment
    };
    make(&app, &who, &name, &hash, edit, comment, parent).await
}

/// Finds the content of a file of a whole revision, which stays from here on.
fn look_up(blobs: &crate::blobs::Blobs, file: WholeFile) -> Result<NewScript, ApiError> {
    let WholeFile {
        path,
        sha256,
        mode: given,
        size,
    } = file;
    check_path(&path).map_err(ApiError::invalid)?;
    let given = mode(given.as_deref())?;
    if !is_hash(&sha256) {
        return Err(ApiError::invalid(format!("{path}: {}", BlobError::NoHash)));
    }
    let len = blobs.keep(&sha256).map_err(BlobError::from)?;
    let len = len.ok_or_else(|| {
        ApiError::not_found(format!(
            "{path}: there is no blob {sha256}: put it first, at /api/v1/blobs/{sha256}"
        ))
    })?;
    if size.is_some_and(|size| size != len) {
        return Err(ApiError::invalid(format!(
            "{path}: its content has {len} bytes, not what `size` says"
        )));
    }
    let (begin, _) = blobs.read_at(&sha256, 0, 2).map_err(BlobError::from)?;
    let default = default_mode(&begin);
    Ok(NewScript {
        file: Script {
            path,
            sha256,
            size: len,
            mode: default,
        },
        mode: given,
        default,
    })
}

async fn find(app: &App, hash: &str, wanted: &str) -> Result<(Revision, Vec<Script>), ApiError> {
    let found = app.repositories.find(hash, which(wanted)?).await?;
    found.ok_or_else(|| {
        ApiError::not_found(format!(
            "there is no revision {wanted}, or it is no longer kept"
        ))
    })
}

/// A revision is named by its id or its number.
fn which(text: &str) -> Result<Which, ApiError> {
    let hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() == 16 && hex {
        return Ok(Which::Id(text.to_owned()));
    }
    let number = text.bytes().all(|b| b.is_ascii_digit()) && text.len() < 16;
    match text.parse() {
        Ok(n) if number => Ok(Which::Number(n)),
        _ => Err(ApiError::invalid(
            "a revision is its id, 16 hex digits, or its number",
        )),
    }
}

fn mode(text: Option<&str>) -> Result<Option<u32>, ApiError> {
    text.map(parse_mode).transpose().map_err(ApiError::invalid)
}

async fn make(
    app: &App,
    who: &Who,
    name: &str,
    hash: &str,
    edit: Edit,
    comment: String,
    parent: Option<String>,
) -> Answer {
    let Edited {
        changed,
        revision,
        files,
    } = app.repositories.edit(hash, edit, comment, parent).await?;
    if let Some(revision) = revision.as_ref().filter(|_| changed) {
        who.note(&format!("revision {}", revision.revision));
        log::info!(
            "the scripts of {name} are at revision {} ({})",
            revision.revision,
            revision.number
        );
    }
    Ok(json(&EditedView {
        changed,
        repository: RepositoryView::new(name, revision.as_ref(), &files),
    }))
}

impl From<EditError> for ApiError {
    fn from(e: EditError) -> Self {
        match e {
            EditError::Unknown => Self::not_found("the identifier was just forgotten"),
            EditError::NotFound(text) => Self::not_found(text),
            EditError::Conflict(current) if current.is_empty() => {
                Self::conflict("nothing was put into this repository yet, so there is no parent")
            }
            EditError::Conflict(current) => Self::conflict(format!(
                "the repository was changed meanwhile: its revision is {current}. Look at that, and make the change on top of it"
            )),
            EditError::Invalid(text) => Self::invalid(text),
            EditError::Store(e) => e.into(),
        }
    }
}

//! Repositories of scripts: for each identifier one, with its revisions.

pub mod manifest;

use crate::events::{Change, Events};
use crate::store::repositories::{Revision, Script, Which};
use crate::store::{Db, Store, StoreError};
use crate::time::now;
use serde::Serialize;
use std::collections::HashMap;

/// Revisions that are kept of a repository; older ones go.
pub const KEEP: u64 = 200;
/// Longest comment, in characters.
const COMMENT: usize = 500;

/// What a device should have, as `scripts.sync` carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// Id of the revision.
    pub revision: String,
    /// Its files, by path.
    pub files: Vec<Script>,
}

/// What is to be done to a repository.
#[derive(Debug, Clone)]
pub enum Edit {
    /// Adds or replaces a file. Without a mode it keeps its own, or gets the `default`.
    Put {
        /// The file; its mode does not count.
        file: Script,
        /// Permissions, where they are given.
        mode: Option<u32>,
        /// Permissions of a new file.
        default: u32,
    },
    /// Takes a file away.
    Remove(String),
    /// These files and no others.
    Whole(Vec<NewScript>),
    /// The files of a revision.
    Revert(Which),
}

/// One file of a whole revision.
#[derive(Debug, Clone)]
pub struct NewScript {
    /// The file; its mode does not count.
    pub file: Script,
    /// Permissions, where they are given; else it keeps its own.
    pub mode: Option<u32>,
    /// Permissions of a new file.
    pub default: u32,
}

/// What became of it.
#[derive(Debug)]
pub struct Edited {
    /// Whether there is a new revision.
    pub changed: bool,
    /// The current one; `None` where nothing was ever put.
    pub revision: Option<Revision>,
    /// Its files.
    pub files: Vec<Script>,
}

/// Why it cannot be done.
#[derive(Debug)]
pub enum EditError {
    /// The identifier is gone.
    Unknown,
    /// There is no such file or revision.
    NotFound(String),
    /// Somebody else has changed it; what is current.
    Conflict(String),
    /// It makes no sense.
    Invalid(String),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for EditError {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

/// All repositories. The content of their files is in blobs.
pub struct Repositories {
    db: Db,
    events: Events,
}

impl Repositories {
    /// The repositories of a store.
    pub fn new(db: Db, events: Events) -> Self {
        Self { db, events }
    }

    /// What the devices of an identifier should have; `None` where nothing was ever put.
    pub async fn current(&self, identifier: &str) -> Result<Option<Manifest>, StoreError> {
        let found = self.find(identifier, Which::Current).await?;
        Ok(found.map(|(revision, files)| Manifest {
            revision: revision.revision,
            files,
        }))
    }

    /// The id of the current revision: enough to tell whether a device has it.
    pub async fn current_id(&self, identifier: &str) -> Result<Option<String>, StoreError> {
        let identifier = identifier.to_owned();
        let found = self
            .db
            .call(move |store| store.revision(&identifier, &Which::Current))
            .await?;
        Ok(found.map(|revision| revision.revision))
    }

    /// A revision with its files.
    pub async fn find(
        &self,
        identifier: &str,
        which: Which,
    ) -> Result<Option<(Revision, Vec<Script>)>, StoreError> {
        let identifier = identifier.to_owned();
        self.db
            .call(move |store| find(store, &identifier, &which))
            .await
    }

    /// All revisions that are kept, newest first.
    pub async fn history(&self, identifier: &str) -> Result<Vec<Revision>, StoreError> {
        let identifier = identifier.to_owned();
        self.db
            .call(move |store| store.revisions(&identifier))
            .await
    }

    /// Makes a new revision, unless nothing changes by it. With `parent` only if that is the id of the current one; an
    /// empty one stands for a repository in which nothing was ever put.
    pub async fn edit(
        &self,
        identifier: &str,
        edit: Edit,
        comment: String,
        parent: Option<String>,
    ) -> Result<Edited, EditError> {
        if comment.chars().count() > COMMENT || comment.contains(char::is_control) {
            return Err(EditError::Invalid(format!(
                "a comment is one line of at most {COMMENT} characters"
            )));
        }
        let key = identifier.to_owned();
        // In the store's thread, where nobody comes in between.
        let edited = self
            .db
            .call(move |store| apply(store, &key, edit, comment, parent.as_deref()))
            .await??;
        if edited.changed {
            self.events.publish_content(identifier, Change::Scripts);
        }
        Ok(edited)
    }
}

fn find(
    store: &mut dyn Store,
    identifier: &str,
    which: &Which,
) -> Result<Option<(Revision, Vec<Script>)>, StoreError> {
    let Some(revision) = store.revision(identifier, which)? else {
        return Ok(None);
    };
    let files = store.scripts(identifier, revision.number)?;
    Ok(Some((revision, files)))
}

fn apply(
    store: &mut dyn Store,
    identifier: &str,
    edit: Edit,
    comment: String,
    parent: Option<&str>,
) -> Result<Result<Edited, EditError>, StoreError> {
    // It may have been forgotten since its name was looked up.
    if !store.knows(identifier)? {
        return Ok(Err(EditError::Unknown));
    }
    let (current, before) = match find(store, identifier, &Which::Current)? {
        Some((current, before)) => (Some(current), before),
        None => (None, Vec::new()),
    };
    let current_id = current.as_ref().map_or("", |c| c.revision.as_str());
    if parent.is_some_and(|parent| parent != current_id) {
        return Ok(Err(EditError::Conflict(current_id.to_owned())));
    }
    let reverted = match &edit {
        Edit::Revert(which) => match find(store, identifier, which)? {
            Some((_, files)) => files,
            None => {
                return Ok(Err(EditError::NotFound(
                    "there is no such revision, or it is no longer kept".to_owned(),
                )));
            }
        },
        _ => Vec::new(),
    };
    let mut files = match changed(&before, edit, reverted) {
        Ok(files) => files,
        Err(e) => return Ok(Err(e)),
    };
    if let Err(reason) = manifest::arrange(&mut files) {
        return Ok(Err(EditError::Invalid(reason)));
    }
    if files == before {
        return Ok(Ok(Edited {
            changed: false,
            revision: current,
            files,
        }));
    }
    let revision = Revision {
        revision: manifest::id(&files),
        number: current.as_ref().map_or(0, |c| c.number) + 1,
        parent: current.map(|c| c.revision),
        created: now(),
        comment,
        files: files.len() as u64,
        bytes: files.iter().map(|f| f.size).sum(),
    };
    store.add_revision(identifier, &revision, &files, KEEP)?;
    Ok(Ok(Edited {
        changed: true,
        revision: Some(revision),
        files,
    }))
}

/// The files after an edit; the `reverted` ones are those of the revision that it names.
fn changed(before: &[Script], edit: Edit, reverted: Vec<Script>) -> Result<Vec<Script>, EditError> {
    let modes: HashMap<&str, u32> = before.iter().map(|f| (f.path.as_str(), f.mode)).collect();
    let with_mode = |mut file: Script, mode: Option<u32>, default: u32| {
        file.mode = mode
            .or_else(|| modes.get(file.path.as_str()).copied())
            .unwrap_or(default);
        file
    };
    let without = |path: &str| before.iter().filter(|f| f.path != path).cloned().collect();
    Ok(match edit {
        Edit::Put {
            file,
            mode,
            default,
        } => {
            let mut files: Vec<Script> = without(&file.path);
            files.push(with_mode(file, mode, default));
            files
        }
        Edit::Remove(path) => {
            if !modes.contains_key(path.as_str()) {
                return Err(EditError::NotFound(format!(
                    "there is no script {path} in the current revision"
                )));
            }
            without(&path)
        }
        Edit::Whole(new) => new
            .into_iter()
            .map(|new| with_mode(new.file, new.mode, new.default))
            .collect(),
        Edit::Revert(_) => reverted,
    })
}

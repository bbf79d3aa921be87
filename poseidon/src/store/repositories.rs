//! Repositories of scripts, as they are stored.

use super::Result;
use serde::{Serialize, Serializer};

/// One file of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Script {
    /// Where it is in the repository.
    pub path: String,
    /// Its content, 64 hex digits.
    pub sha256: String,
    /// Bytes of it.
    pub size: u64,
    /// Permissions; octal digits in a text for everyone else.
    #[serde(serialize_with = "octal")]
    pub mode: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn octal<S: Serializer>(mode: &u32, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{mode:04o}"))
}

/// A revision, without its files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Revision {
    /// Made from its content: the same files have the same.
    pub revision: String,
    /// Its place in the history, from 1 on.
    pub number: u64,
    /// The revision that was current before.
    pub parent: Option<String>,
    /// When it was made.
    pub created: f64,
    /// What its maker said of it.
    pub comment: String,
    /// How many files it has.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One revision of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Current,
    /// By its number.
    Number(u64),
    /// By its id; the newest where there are several.
    Id(String),
}

/// What a store does for repositories; `identifier` is a hash.
pub trait RepositoryStore {
    /// Whether there is such an identifier.
    fn knows(&mut self, identifier: &str) -> Result<bool>;
    /// A revision.
    fn revision(&mut self, identifier: &str, which: &Which) -> Result<Option<Revision>>;
    /// The revisions that are kept, newest first.
    fn revisions(&mut self, identifier: &str) -> Result<Vec<Revision>>;
    /// The files of the revision with this number, by path.
    fn scripts(&mut self, identifier: &str, number: u64) -> Result<Vec<Script>>;
    /// Makes a revision the current one, and forgets those beyond the newest `keep`.
    fn add_revision(
        &mut self,
        identifier: &str,
        revision: &Revision,
        files: &[Script],
        keep: u64,
    ) -> Result<()>;
}

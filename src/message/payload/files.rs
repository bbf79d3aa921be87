//! What `file.put`, `directory.put`, `file.get` and `file.list` ask for. One type for the four: each costs a small device
//! kilobytes.

use super::loose;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Entries of a manifest that are read at all, whatever a device allows: each takes memory.
pub const ENTRIES_LIMIT: usize = 100_000;

/// A request for files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(
    missing_docs,
    clippy::struct_excessive_bools,
    reason = "the wire has them"
)]
pub struct FileRequest {
    /// Absolute.
    pub path: String,
    #[serde(rename = "ref")]
    pub reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "loose::text"
    )]
    pub owner: Option<String>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "loose::text"
    )]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<f64>,
    pub if_changed: bool,
    pub parents: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<Entries>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Entry>,
    pub prune: bool,
    pub offset: u64,
    pub follow: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// What an entry of a folder is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum EntryKind {
    #[default]
    File,
    Directory,
    Symlink,
}

/// An entry of `directory.put`; of a manifest itself, only what names its content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Entry {
    /// Relative.
    pub path: String,
    #[serde(rename = "type")]
    pub kind: EntryKind,
    #[serde(rename = "ref")]
    pub reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "loose::text"
    )]
    pub owner: Option<String>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "loose::text"
    )]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Entries, no more than [`ENTRIES_LIMIT`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Entries(pub Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            if entries.len() >= ENTRIES_LIMIT {
                let text = format!("more than {ENTRIES_LIMIT} entries");
                return Err(A::Error::custom(text));
            }
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

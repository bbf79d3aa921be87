//! Data given to identifiers, as it is stored.

use super::Result;
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;

/// What is known of a piece of data, without its content.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Its content is for the device only.
    pub secret: bool,
    /// Bytes of it.
    pub size: u64,
    /// Hash of its content. Nobody is told that of a secret: a short one could be guessed by it.
    pub sha256: Option<String>,
    /// When it was put.
    pub changed: f64,
}

/// The content itself. It does not show in logs.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// In the database.
    Value(Vec<u8>),
    /// In the blob with this hash.
    Blob(String),
    /// In the database, encrypted.
    Sealed(Sealed),
}

/// A value that is encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Id of the key.
    pub key: String,
    /// Nonce, text and tag.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes under {}", self.bytes.len(), self.key)
    }
}

/// A secret where it is stored.
#[derive(Debug)]
pub struct Secret {
    /// Hash of the identifier.
    pub identifier: String,
    /// Name of the data.
    pub name: String,
    /// Encrypted, or plain from before.
    pub content: Content,
}

impl Secret {
    /// Id of the key that it is encrypted with, if it is.
    pub fn sealed_key(&self) -> Option<&str> {
        match &self.content {
            Content::Sealed(sealed) => Some(&sealed.key),
            _ => None,
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(bytes) => write!(f, "Value({} bytes)", bytes.len()),
            Self::Blob(hash) => write!(f, "Blob({hash})"),
            Self::Sealed(sealed) => write!(f, "Sealed({sealed:?})"),
        }
    }
}

/// How much an identifier was given.
#[derive(Debug, Default, Clone, Copy)]
#[allow(missing_docs)]
pub struct Given {
    pub entries: u64,
    /// In the database.
    pub bytes: u64,
}

/// What a store does for named data; `identifier` is a hash.
pub trait NamedStore {
    /// All that an identifier was given but `key`, summed up.
    fn given(&mut self, identifier: &str, key: &str) -> Result<Given>;
    /// Adds or replaces; the hash of a secret is stored with it.
    fn put_named(
        &mut self,
        identifier: &str,
        entry: &Entry,
        sha256: &str,
        content: &Content,
    ) -> Result<()>;
    /// All entries of an identifier, by name.
    fn named(&mut self, identifier: &str) -> Result<Vec<Entry>>;
    /// One entry.
    fn named_entry(&mut self, identifier: &str, key: &str) -> Result<Option<Entry>>;
    /// The content of one.
    fn named_content(&mut self, identifier: &str, key: &str) -> Result<Option<Content>>;
    /// Takes one away; false where there is none.
    fn delete_named(&mut self, identifier: &str, key: &str) -> Result<bool>;
    /// All secrets.
    fn secrets(&mut self) -> Result<Vec<Secret>>;
    /// Replaces the content of secrets, of all these or of none; identifier, name, content of each.
    fn reseal(&mut self, secrets: &[(String, String, Sealed)]) -> Result<()>;
    /// Those of these blobs that a kept revision or named data refers to.
    fn wanted_blobs(&mut self, hashes: &[String]) -> Result<HashSet<String>>;
}

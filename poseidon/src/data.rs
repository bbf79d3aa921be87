//! Named data: what an operator gives to the devices of an identifier, such as a key or a file.
//!
//! A secret is for the device only: no answer of the API, event or log has its content, and in the store it is encrypted
//! ([`crate::secrets`]).

use crate::blobs::{Blobs, sha256};
use crate::secrets::Keys;
use crate::store::named::{Content, Entry};
use crate::store::{Db, StoreError};
use crate::time::now;
use std::io;

/// Content of so many bytes is in the database; more of it is a blob, and no secret.
pub const VALUE_BYTES: usize = 1 << 20;
/// Entries of one identifier…
const MAX_ENTRIES: u64 = 256;
/// …and their bytes in the database.
const MAX_BYTES: u64 = 16 << 20;
/// Characters of a key.
const KEY: usize = 128;

/// Why something was not put or given.
#[derive(Debug)]
pub enum DataError {
    /// The identifier is gone.
    Unknown,
    /// A secret would become readable.
    IsSecret,
    /// There is too much already.
    Full(String),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for DataError {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

/// What it says of a key that cannot be; nothing where it can.
pub fn check_key(key: &str) -> Result<(), String> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    let step = |part: &str| matches!(part, "" | "." | "..");
    let wrong = if key == "attributes" || key == "attribute" || key.starts_with("attribute/") {
        "that name stands for the attributes of the identifier"
    } else if !(1..=KEY).contains(&key.len()) || !key.bytes().all(letter) {
        "1 to 128 letters, digits, `.`, `_`, `-` and `/` are expected"
    } else if key.split('/').any(step) {
        "between its slashes there is a name that is not `.` or `..`"
    } else {
        return Ok(());
    };
    Err(format!("{key:?} is no name of data: {wrong}"))
}

impl Content {
    /// At most `len` bytes from `offset` on, and whether the content ends behind them. Blocks.
    pub fn read_at(&self, blobs: &Blobs, offset: u64, len: usize) -> io::Result<(Vec<u8>, bool)> {
        match self {
            Self::Blob(hash) => blobs.read_at(hash, offset, len),
            // Whoever has a use for it has it opened first.
            Self::Sealed(_) => Err(io::Error::other("it is encrypted")),
            Self::Value(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = bytes.get(start..).unwrap_or_default();
                Ok((rest[..len.min(rest.len())].to_vec(), len >= rest.len()))
            }
        }
    }

    /// Its hash.
    pub fn sha256(&self) -> String {
        match self {
            Self::Blob(hash) => hash.clone(),
            Self::Value(bytes) => sha256(bytes),
            Self::Sealed(sealed) => sha256(&sealed.bytes),
        }
    }
}

/// All named data; identifiers are named by their hash.
pub struct Data {
    db: Db,
    keys: Keys,
}

impl Data {
    /// The data of a store, with the keys of its secrets.
    pub fn new(db: Db, keys: Keys) -> Self {
        Self { db, keys }
    }

    /// The content of `key`, a secret's too: for the devices of this identifier and nobody else.
    pub async fn get(&self, identifier: &str, key: &str) -> Result<Option<Content>, StoreError> {
        let (owner, name) = (identifier.to_owned(), key.to_owned());
        let found = self
            .db
            .call(move |store| store.named_content(&owner, &name))
            .await?;
        let Some(Content::Sealed(sealed)) = found else {
            return Ok(found);
        };
        let opened = self.keys.open(identifier, key, &sealed);
        let opened = opened.map_err(|e| {
            log::error!("the secret {key} cannot be decrypted: {e}");
            StoreError::Failed(format!("the secret cannot be decrypted: {e}"))
        });
        opened.map(|value| Some(Content::Value(value)))
    }

    /// What is known of `key`, and its content unless it is a secret: for operators.
    pub async fn show(
        &self,
        identifier: &str,
        key: &str,
    ) -> Result<Option<(Entry, Option<Content>)>, StoreError> {
        let (identifier, key) = (identifier.to_owned(), key.to_owned());
        // In one call, so that what was no secret is not one when it is read.
        self.db
            .call(move |store| {
                let Some(entry) = store.named_entry(&identifier, &key)? else {
                    return Ok(None);
                };
                let content = if entry.secret {
                    None
                } else {
                    store.named_content(&identifier, &key)?
                };
                Ok(Some((entry, content)))
            })
            .await
    }

    /// What an identifier was given, by name.
    pub async fn list(&self, identifier: &str) -> Result<Vec<Entry>, StoreError> {
        let identifier = identifier.to_owned();
        self.db.call(move |store| store.named(&identifier)).await
    }

    /// Adds or replaces. A secret stays one until it is removed.
    pub async fn put(
        &self,
        identifier: &str,
        key: &str,
        secret: bool,
        content: Content,
        (sha256, size): (String, u64),
    ) -> Result<Entry, DataError> {
        let (content, sha256) = match content {
            // Its hash is not kept: a short one could be guessed by it.
            Content::Value(value) if secret => {
                let sealed = self.keys.seal(identifier, key, &value);
                let sealed = sealed.map_err(StoreError::Failed)?;
                (Content::Sealed(sealed), String::new())
            }
            content => (content, sha256),
        };
        let identifier = identifier.to_owned();
        let entry = Entry {
            key: key.to_owned(),
            secret,
            size,
            sha256: (!secret).then(|| sha256.clone()),
            changed: now(),
        };
        self.db
            .call(move |store| {
                if !store.knows(&identifier)? {
                    return Ok(Err(DataError::Unknown));
                }
                let known = store.named_entry(&identifier, &entry.key)?;
                if known.is_some_and(|known| known.secret) && !entry.secret {
                    return Ok(Err(DataError::IsSecret));
                }
                let given = store.given(&identifier, &entry.key)?;
                let more = match &content {
                    Content::Value(_) | Content::Sealed(_) => size,
                    Content::Blob(_) => 0,
                };
                if given.entries >= MAX_ENTRIES || given.bytes + more > MAX_BYTES {
                    return Ok(Err(DataError::Full(format!(
                        "an identifier has at most {MAX_ENTRIES} entries, and {} MiB in those of up to 1 MiB",
                        MAX_BYTES >> 20
                    ))));
                }
                store.put_named(&identifier, &entry, &sha256, &content)?;
                Ok(Ok(entry))
            })
            .await?
    }

    /// Takes `key` away; false where there is none.
    pub async fn delete(&self, identifier: &str, key: &str) -> Result<bool, StoreError> {
        let (identifier, key) = (identifier.to_owned(), key.to_owned());
        self.db
            .call(move |store| store.delete_named(&identifier, &key))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_names() {
        let long = "k".repeat(128);
        for good in ["a", "ssh/id_ed25519", "A-b.c", "attributes2", &long] {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        let longer = "k".repeat(129);
        for bad in [
            "",
            "attributes",
            "attribute",
            "attribute/x",
            "sha256:00",
            "a b",
            "a\n",
            "a\0",
            "ä",
            "a//b",
            "/a",
            "a/",
            "a/../b",
            ".",
            &longer,
        ] {
            assert!(check_key(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_value_is_read_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::start(dir.path().join("blobs"), 100, 100).unwrap();
        let hash = blobs.put(b"hello").unwrap();
        for content in [Content::Value(b"hello".to_vec()), Content::Blob(hash)] {
            for (offset, len, bytes, eof) in [
                (0, 2, &b"he"[..], false),
                (2, 3, b"llo", true),
                (5, 3, b"", true),
                (u64::MAX, 3, b"", true),
                (0, 0, b"", false),
            ] {
                let read = content.read_at(&blobs, offset, len).unwrap();
                assert_eq!(read, (bytes.to_vec(), eof), "{content:?} {offset} {len}");
            }
            assert!(!format!("{content:?}").contains("hello"));
        }
    }
}

//! Which content a job names: an agent gets that of its own open jobs, and no other.

use crate::blobs::{Blobs, is_hash, sha256};
use crate::jobs::{Live, lock};
use crate::server::App;
use crate::store::Job;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::Semaphore;
use triton::message::payload::{DIRECTORY_PUT, FILE_PUT, SCRIPTS_SYNC};

/// How content is named by its hash.
const PREFIX: &str = "sha256:";
/// A manifest is read up to so many bytes…
const MANIFEST_BYTES: u64 = 64 << 20;
/// …and up to so many entries.
const MANIFEST_ENTRIES: usize = 200_000;

/// SHA-256 of all that a job names, in order.
pub struct Named(Vec<[u8; 32]>);

impl Named {
    /// Whether this one is among them.
    pub fn has(&self, hash: &str) -> bool {
        bytes(hash).is_some_and(|hash| self.0.binary_search(&hash).is_ok())
    }

    fn of(hashes: impl Iterator<Item = String>) -> Self {
        let mut all: Vec<_> = hashes.filter_map(|hash| bytes(&hash)).collect();
        all.sort_unstable();
        all.dedup();
        Self(all)
    }
}

/// The hash in a `ref`; `None` where that is something else.
pub fn hash_of(reference: &str) -> Option<&str> {
    reference.strip_prefix(PREFIX)
}

/// What open jobs name. Those of one push to many devices share it.
pub struct Manifests {
    /// By the hash of the request.
    known: Mutex<HashMap<String, Weak<Named>>>,
    /// One is read at a time.
    turn: Semaphore,
}

impl Default for Manifests {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            turn: Semaphore::new(1),
        }
    }
}

impl Manifests {
    /// What a job names. An error says that its manifest cannot be read now.
    pub async fn named(app: &Arc<App>, live: &Live) -> io::Result<Arc<Named>> {
        if let Some(named) = live.named.get() {
            return Ok(named.clone());
        }
        // It is never closed.
        let _turn = app.manifests.turn.acquire().await;
        let job = live.job();
        let shared = app.clone();
        let read = move || shared.manifests.find(&shared.blobs, &job);
        let named = tokio::task::spawn_blocking(read)
            .await
            .map_err(io::Error::other)??;
        Ok(live.named.get_or_init(|| named).clone())
    }

    fn find(&self, blobs: &Blobs, job: &Job) -> io::Result<Arc<Named>> {
        let key = sha256(format!("{}\n{}", job.kind, job.request.get()).as_bytes());
        if let Some(named) = lock(&self.known).get(&key).and_then(Weak::upgrade) {
            return Ok(named);
        }
        let named = Arc::new(read(blobs, job)?);
        let mut known = lock(&self.known);
        known.retain(|_, named| named.strong_count() > 0);
        known.insert(key, Arc::downgrade(&named));
        Ok(named)
    }
}

fn read(blobs: &Blobs, job: &Job) -> io::Result<Named> {
    let request: Value = serde_json::from_str(job.request.get()).unwrap_or_default();
    let reference = |value: &Value| hash_of(value["ref"].as_str()?).map(str::to_owned);
    let list = |field: &str| request[field].as_array().into_iter().flatten();
    Ok(match job.kind.as_str() {
        FILE_PUT | "agent.update" => Named::of(reference(&request).into_iter()),
        SCRIPTS_SYNC => {
            let hashes = list("files").filter_map(|file| file["sha256"].as_str());
            Named::of(hashes.map(str::to_owned))
        }
        DIRECTORY_PUT => {
            let manifest = reference(&request["manifest"]);
            let more = match &manifest {
                Some(hash) => entries(blobs, hash)?,
                None => Vec::new(),
            };
            let own = list("entries").filter_map(reference);
            Named::of(own.chain(manifest).chain(more))
        }
        _ => Named(Vec::new()),
    })
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "ref")]
    reference: Option<String>,
}

/// What a manifest names; nothing where it is none, which is for the agent to say.
fn entries(blobs: &Blobs, hash: &str) -> io::Result<Vec<String>> {
    if !is_hash(hash) {
        return Ok(Vec::new());
    }
    let text = blobs.read(hash, MANIFEST_BYTES)?;
    let entries: Vec<Entry> = serde_json::from_slice(&text).unwrap_or_default();
    if entries.len() > MANIFEST_ENTRIES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {MANIFEST_ENTRIES} entries"),
        ));
    }
    let hash = |entry: Entry| hash_of(&entry.reference?).map(str::to_owned);
    Ok(entries.into_iter().filter_map(hash).collect())
}

/// A hash without its digits.
fn bytes(hash: &str) -> Option<[u8; 32]> {
    if !is_hash(hash) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(hash.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_found_among_others() {
        let hashes = ["a", "0", "f", "5"].map(|digit| digit.repeat(64));
        let named = Named::of(hashes.iter().cloned());
        for hash in &hashes {
            assert!(named.has(hash), "{hash}");
        }
        for other in [
            "1".repeat(64),
            "a".repeat(63),
            "A".repeat(64),
            String::new(),
        ] {
            assert!(!named.has(&other), "{other}");
        }
    }
}

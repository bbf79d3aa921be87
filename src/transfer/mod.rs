//! Content on its way between this device's files and a peer (`docs/protocol.md` section 6). All of it runs on workers:
//! each step asks its job whether to go on, and no link waits for a disk.
//!
//! ```text
//! file.put       put ─ temporary ─ fetch ─ attributes ─ rename
//! directory.put  manifest ─ for each entry put ─ prune
//! file.get       get      file.list  list
//! ```

#![allow(
    clippy::similar_names,
    reason = "a context and a content are what all of it is about"
)]

mod attributes;
pub mod directory;
pub mod fetch;
pub mod get;
pub mod leftovers;
pub mod list;
pub mod manifest;
mod meter;
pub mod path;
mod patience;
mod prune;
pub mod put;
#[cfg(test)]
pub(crate) mod stage;
mod temporary;
mod walk;

pub use attributes::time;
pub use fetch::{Content, Pace, fetch, hash, write_with_holes};
pub use meter::Meter;
pub use patience::Patience;

use crate::message::ErrorCode;
use crate::message::payload::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What the requests for files have in common.
#[derive(Debug)]
pub struct Files {
    /// How content moves.
    pub pace: Pace,
    /// Bytes of a file system that stay free.
    pub reserve: u64,
    /// Entries of a manifest.
    pub entries: usize,
    /// The folder of the notes of what is on its way.
    pub notes: PathBuf,
    /// Paths that are being put.
    busy: Mutex<Vec<String>>,
}

impl Files {
    /// Puts nothing yet.
    pub fn new(pace: Pace, reserve: u64, entries: usize, notes: PathBuf) -> Self {
        Self {
            pace,
            reserve,
            entries,
            notes,
            busy: Mutex::default(),
        }
    }

    fn busy(&self) -> MutexGuard<'_, Vec<String>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a transfer for as long as it is on its way, and removes what those of a day ago have left behind.
    fn note(&self, of: leftovers::Of, path: &str) -> leftovers::Note {
        let busy = |path: &str| self.busy().iter().any(|busy| path::overlap(busy, path));
        // One that waits for its connection is given up after a day: not before it knows.
        let now = SystemTime::now() - Duration::from_hours(1);
        leftovers::sweep_again(&self.notes, now, &busy);
        leftovers::Note::take(&self.notes, of, path)
    }

    /// Takes a path and all below it for one job. There are no more claims than workers.
    fn claim(&self, path: &str) -> Result<Claim<'_>, Error> {
        let mut busy = self.busy();
        if let Some(other) = busy.iter().find(|other| path::overlap(other, path)) {
            let text = format!("another job puts {other:?} just now; ask again when it has ended");
            return Err(Error::new(ErrorCode::Busy, text));
        }
        busy.push(path.to_owned());
        Ok(Claim {
            files: self,
            path: path.to_owned(),
        })
    }
}

struct Claim<'a> {
    files: &'a Files,
    path: String,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.files.busy().retain(|path| *path != self.path);
    }
}

/// That the operating system does not do something: `cannot WHAT: why`.
pub fn io_error(what: impl fmt::Display, error: &io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::NotFound => ErrorCode::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => no_space(),
        _ => ErrorCode::Io,
    };
    Error::new(code, format!("cannot {what}: {error}"))
}

pub(crate) fn no_space() -> ErrorCode {
    ErrorCode::Other("no-space".to_owned())
}

fn refused(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::Refused, text)
}

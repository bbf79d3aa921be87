//! Content by its hash: one file for each SHA-256, `blobs/ab/HEX` in the data folder.
//!
//! A blob is whole or not there: it is written beside, hashed on the way, synced and renamed. What nothing refers to
//! goes after a day, counted from when it was put, or last referred to, by the time of its file.

pub mod sweep;
mod upload;

pub use upload::Upload;

use crate::jobs::lock;
use crate::jobs::spool::free;
use std::collections::HashSet;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// What nothing refers to is deleted after so long.
pub const KEEP: Duration = Duration::from_hours(24);
/// A blob that is referred to is marked so often that it lives for about a day more when that ends.
const MARK: Duration = Duration::from_hours(1);
/// Blobs that are being put at a time.
pub const MAX_UPLOADS: usize = 64;
/// Folder of what is being put.
const PARTS: &str = "parts";

/// Why a blob cannot be put.
#[derive(Debug)]
pub enum BlobError {
    /// That is no hash.
    NoHash,
    /// It has more bytes than one may have.
    TooLarge(u64),
    /// There is no room for it; why.
    Full(String),
    /// So many are being put already.
    Busy,
    /// Its content has another hash; which.
    Wrong(String),
    /// The disk failed.
    Io(io::Error),
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHash => f.write_str("a SHA-256 has 64 hex digits, in lower case"),
            Self::TooLarge(limit) => {
                write!(f, "a blob has at most {limit} bytes (serve --blob-bytes)")
            }
            Self::Full(why) => write!(f, "there is no room for it: {why}"),
            Self::Busy => write!(
                f,
                "{MAX_UPLOADS} blobs are being put already: try again in a moment"
            ),
            Self::Wrong(is) => write!(
                f,
                "what arrived has the SHA-256 {is}: it was changed on the way, or while it was read"
            ),
            Self::Io(e) => write!(f, "the blob cannot be stored: {e}"),
        }
    }
}

impl From<io::Error> for BlobError {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(format!(
                "the disk of the data folder is full: {e}; free space there, and try again"
            )),
            _ => Self::Io(e),
        }
    }
}

/// The folder of all blobs and its bounds. All calls block.
pub struct Blobs {
    dir: PathBuf,
    blob_limit: u64,
    total_limit: u64,
    /// Bytes of all blobs, and of those on their way.
    used: AtomicU64,
    uploads: AtomicUsize,
    /// Held by who deletes or marks a file, so that none is deleted that was just marked.
    marking: Mutex<()>,
    free: fn(&Path) -> Option<u64>,
}

impl Blobs {
    /// Opens the folder, which is created where it is missing; what was on its way when the server ended is deleted.
    pub fn start(dir: PathBuf, blob_limit: u64, total_limit: u64) -> io::Result<Arc<Self>> {
        let parts = dir.join(PARTS);
        make_dir(&parts)?;
        for entry in std::fs::read_dir(&parts)? {
            std::fs::remove_file(entry?.path())?;
        }
        let blobs = Self {
            dir,
            blob_limit,
            total_limit,
            used: AtomicU64::new(0),
            uploads: AtomicUsize::new(0),
            marking: Mutex::new(()),
            free,
        };
        let mut used = 0;
        blobs.each(|_, metadata| used += metadata.len())?;
        blobs.used.store(used, Ordering::Relaxed);
        Ok(Arc::new(blobs))
    }

    /// The blob with this hash, for reading.
    pub fn open(&self, hash: &str) -> io::Result<File> {
        File::open(self.path(hash).ok_or(io::ErrorKind::NotFound)?)
    }

    /// How many bytes it has; `None` where it is not there.
    pub fn len(&self, hash: &str) -> io::Result<Option<u64>> {
        let Some(path) = self.path(hash) else {
            return Ok(None);
        };
        match path.metadata() {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The same, and the blob stays for another day: for who is about to refer to it.
    pub fn keep(&self, hash: &str) -> io::Result<Option<u64>> {
        let _marking = lock(&self.marking);
        let len = self.len(hash)?;
        if len.is_some() {
            self.mark(hash)?;
        }
        Ok(len)
    }

    /// At most `len` bytes from `offset` on, and whether the blob ends behind them.
    pub fn read_at(&self, hash: &str, offset: u64, len: usize) -> io::Result<(Vec<u8>, bool)> {
        let file = self.open(hash)?;
        let size = file.metadata()?.len();
        let rest = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(rest)];
        file.read_exact_at(&mut bytes, offset)?;
        Ok((bytes, len >= rest))
    }

    /// All of a blob that has no more than `limit` bytes.
    pub fn read(&self, hash: &str, limit: u64) -> io::Result<Vec<u8>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (bytes, eof) = self.read_at(hash, 0, limit)?;
        if eof {
            Ok(bytes)
        } else {
            Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has more than {limit} bytes"),
            ))
        }
    }

    /// Puts what is in memory; its hash.
    pub fn put(self: &Arc<Self>, bytes: &[u8]) -> Result<String, BlobError> {
        let hash = sha256(bytes);
        if self.keep(&hash)?.is_none() {
            let mut upload = self.upload(Some(&hash), Some(bytes.len() as u64))?;
            upload.write(bytes)?;
            upload.finish()?;
        }
        Ok(hash)
    }

    /// Begins to put a blob, of this hash and this size where they are known.
    pub fn upload(
        self: &Arc<Self>,
        hash: Option<&str>,
        size: Option<u64>,
    ) -> Result<Upload, BlobError> {
        Upload::begin(self.clone(), hash, size)
    }

    /// Blobs that are old enough to be looked at: those that nothing refers to may go, the others are to be marked.
    pub fn old(&self, now: SystemTime) -> io::Result<Vec<String>> {
        let mut old = Vec::new();
        self.each(|hash, metadata| {
            if age(metadata, now) + MARK >= KEEP {
                old.push(hash);
            }
        })?;
        Ok(old)
    }

    /// Deletes those of the `old` ones that are not `wanted` and whose day is over; returns how many.
    pub fn sweep(
        &self,
        old: &[String],
        wanted: &HashSet<String>,
        now: SystemTime,
    ) -> io::Result<usize> {
        let mut deleted = 0;
        for hash in old {
            let _marking = lock(&self.marking);
            let Some(path) = self.path(hash) else {
                continue;
            };
            // Marked, or gone, since it was looked at.
            let Ok(metadata) = path.metadata() else {
                continue;
            };
            if wanted.contains(hash) {
                self.mark(hash)?;
            } else if age(&metadata, now) >= KEEP {
                // One that cannot be deleted must not keep the others.
                if let Err(e) = std::fs::remove_file(&path) {
                    log::warn!("the blob {} is not deleted: {e}", path.display());
                    continue;
                }
                self.release(metadata.len());
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Where the blob with this hash is.
    fn path(&self, hash: &str) -> Option<PathBuf> {
        is_hash(hash).then(|| self.dir.join(&hash[..2]).join(hash))
    }

    /// Takes room for so many bytes more.
    fn reserve(&self, bytes: u64) -> Result<(), BlobError> {
        let more = |used: u64| {
            used.checked_add(bytes)
                .filter(|used| *used <= self.total_limit)
        };
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map_err(|used| {
                BlobError::Full(format!(
                    "blobs take {used} of {} bytes (serve --blob-store-bytes); what nothing refers to goes after a day",
                    self.total_limit
                ))
            })?;
        Ok(())
    }

    fn release(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn mark(&self, hash: &str) -> io::Result<()> {
        self.open(hash)?.set_modified(SystemTime::now())
    }

    /// Calls `take` for each blob.
    fn each(&self, mut take: impl FnMut(String, &std::fs::Metadata)) -> io::Result<()> {
        for folder in std::fs::read_dir(&self.dir)? {
            let folder = folder?;
            if folder.file_name() == PARTS || !folder.file_type()?.is_dir() {
                continue;
            }
            for entry in std::fs::read_dir(folder.path())? {
                let entry = entry?;
                // One that is just being deleted has no metadata.
                let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata())
                else {
                    continue;
                };
                if is_hash(&name) {
                    take(name, &metadata);
                }
            }
        }
        Ok(())
    }
}

/// How long ago a blob was marked. A time in the future is none: the clock was set back.
fn age(metadata: &std::fs::Metadata, now: SystemTime) -> Duration {
    let marked = metadata.modified().unwrap_or(now);
    now.duration_since(marked).unwrap_or_default()
}

/// Whether a text is the hash of a blob.
pub fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// SHA-256 of what is in memory, as blobs are called.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    triton::message::id::hex(&sha2::Sha256::digest(bytes))
}

fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests;

//! A blob on its way in.

use super::{BlobError, Blobs, MAX_UPLOADS, PARTS, is_hash, make_dir};
use crate::jobs::lock;
use crate::jobs::spool::RESERVE;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A blob that is being written. Dropped before its end it leaves nothing.
pub struct Upload {
    blobs: Arc<Blobs>,
    expected: Option<String>,
    /// `None` where the blob is there already: then what comes is only verified.
    part: Option<(PathBuf, File)>,
    hash: Sha256,
    len: u64,
    /// Bytes for which room was taken.
    reserved: u64,
}

impl Upload {
    pub(super) fn begin(
        blobs: Arc<Blobs>,
        hash: Option<&str>,
        size: Option<u64>,
    ) -> Result<Self, BlobError> {
        if hash.is_some_and(|hash| !is_hash(hash)) {
            return Err(BlobError::NoHash);
        }
        if size.is_some_and(|size| size > blobs.blob_limit) {
            return Err(BlobError::TooLarge(blobs.blob_limit));
        }
        let one_more = |n: usize| (n < MAX_UPLOADS).then_some(n + 1);
        blobs
            .uploads
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .map_err(|_| BlobError::Busy)?;
        // From here on its drop counts down.
        let mut upload = Self {
            blobs,
            expected: hash.map(str::to_owned),
            part: None,
            hash: Sha256::new(),
            len: 0,
            reserved: 0,
        };
        let known = match hash {
            Some(hash) => upload.blobs.keep(hash)?.is_some(),
            None => false,
        };
        if !known {
            upload.reserve(size.unwrap_or(0))?;
            let name = triton::message::id::random();
            let path = upload.blobs.dir.join(PARTS).join(name);
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            upload.part = Some((path, file));
        }
        Ok(upload)
    }

    /// Whether the blob was there before.
    pub fn is_known(&self) -> bool {
        self.part.is_none()
    }

    /// Takes a piece.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.len += bytes.len() as u64;
        if self.len > self.blobs.blob_limit {
            return Err(BlobError::TooLarge(self.blobs.blob_limit));
        }
        if self.part.is_some() && self.len > self.reserved {
            self.reserve(self.len - self.reserved)?;
        }
        if let Some((_, file)) = &mut self.part {
            file.write_all(bytes)?;
        }
        self.hash.update(bytes);
        Ok(())
    }

    /// Makes it a blob; its hash and size.
    pub fn finish(mut self) -> Result<(String, u64), BlobError> {
        let is = triton::message::id::hex(&std::mem::take(&mut self.hash).finalize());
        if self.expected.as_ref().is_some_and(|hash| *hash != is) {
            return Err(BlobError::Wrong(is));
        }
        let Some((part, file)) = &self.part else {
            return Ok((is, self.len));
        };
        file.sync_all()?;
        let path = self.blobs.path(&is).ok_or(BlobError::NoHash)?;
        let folder = self.blobs.dir.join(&is[..2]);
        make_dir(&folder)?;
        {
            let _marking = lock(&self.blobs.marking);
            // Who put the same meanwhile has counted it: then this one's room is given back by the drop.
            let is_new = !path.exists();
            std::fs::rename(part, &path)?;
            self.part = None;
            if is_new {
                self.blobs.release(self.reserved.saturating_sub(self.len));
                self.reserved = 0;
            }
        }
        File::open(&folder)?.sync_all()?;
        File::open(&self.blobs.dir)?.sync_all()?;
        Ok((is, self.len))
    }

    /// Takes room in the store, where the disk has it.
    fn reserve(&mut self, bytes: u64) -> Result<(), BlobError> {
        let free = (self.blobs.free)(&self.blobs.dir);
        if free.is_some_and(|free| free < bytes.saturating_add(RESERVE)) {
            return Err(BlobError::Full(format!(
                "the disk of the data folder has {} MiB left, of which {} stay free; free space there, and try again",
                free.unwrap_or(0) >> 20,
                RESERVE >> 20
            )));
        }
        self.blobs.reserve(bytes)?;
        self.reserved += bytes;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.blobs.release(self.reserved);
        self.blobs.uploads.fetch_sub(1, Ordering::Relaxed);
        if let Some((part, _)) = self.part.take()
            && let Err(e) = std::fs::remove_file(&part)
        {
            log::warn!("{} is not deleted: {e}", part.display());
        }
    }
}

//! A job's output in a file: what the agent sends is appended, readers of any speed read the file.
//!
//! Records: kind (1 byte), offset in the stream (8 bytes, little-endian), length (4 bytes), bytes. Gaps are not
//! stored: a reader sees them where the next offset of a stream is not the one it expects, and at the end, where
//! the stream is known to be longer.

use crate::jobs::lock;
use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use triton::message::payload::Stream;

const HEADER: usize = 13;
/// No record is longer: a message has at most 1 MiB.
const RECORD_LIMIT: usize = 4 << 20;
/// A reader takes about so much at a time.
const READ: usize = 256 << 10;
/// When all files together are over their bound, the oldest are deleted down to this share of it.
const PRUNE_TO: f64 = 0.9;
/// With less free space on the disk output is not stored: the database needs it.
pub(crate) const RESERVE: u64 = 64 << 20;
/// The free space is looked at before so many bytes are written, and each time while there is too little.
const CHECK_EVERY: u64 = 1 << 20;
/// A file takes at least so much of the disk.
const FILE_MIN: u64 = 4096;

const KIND_STDOUT: u8 = 0;
const KIND_STDERR: u8 = 1;
const KIND_PROGRESS: u8 = 2;

/// The folder of all output files and its bounds.
pub struct Spools {
    dir: PathBuf,
    job_limit: u64,
    total_limit: u64,
    used: AtomicU64,
    pruning: Mutex<()>,
    /// Free bytes of a folder's disk, where that is known.
    free: fn(&Path) -> Option<u64>,
    /// Bytes that may be written before the next look at the free space.
    unchecked: AtomicU64,
}

impl Spools {
    /// Opens the folder, which is created where it is missing.
    pub fn open(dir: PathBuf, job_limit: u64, total_limit: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let used = list(&dir)?.iter().map(|(_, _, size)| taken(*size)).sum();
        Ok(Self {
            dir,
            job_limit,
            total_limit,
            used: AtomicU64::new(used),
            pruning: Mutex::new(()),
            free,
            unchecked: AtomicU64::new(0),
        })
    }

    /// The file of a job.
    pub fn path(&self, token: &str) -> PathBuf {
        self.dir.join(token)
    }

    /// Deletes the files of jobs that are no more. Who reads one has it open and reads on.
    pub fn delete(&self, tokens: &[String]) {
        let _no_pruning = lock(&self.pruning);
        for token in tokens {
            let path = self.path(token);
            // Most jobs write nothing and have no file.
            let Ok(metadata) = path.metadata() else {
                continue;
            };
            match std::fs::remove_file(&path) {
                Ok(()) => {
                    let less = |used: u64| Some(used.saturating_sub(taken(metadata.len())));
                    let _ = self
                        .used
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
                }
                Err(e) => log::warn!("the output of job {token} is not deleted: {e}"),
            }
        }
    }

    /// Whether the disk has room for `size` bytes more of output.
    fn has_room(&self, size: u64) -> bool {
        let left = self.unchecked.load(Ordering::Relaxed);
        if left >= size {
            // Two at a time may count as one: this is no exact science.
            self.unchecked.store(left - size, Ordering::Relaxed);
            return true;
        }
        let room = (self.free)(&self.dir).is_none_or(|free| free >= RESERVE + size);
        let left = if room { CHECK_EVERY } else { 0 };
        self.unchecked.store(left, Ordering::Relaxed);
        room
    }

    fn is_over(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.total_limit
    }

    /// Deletes the oldest files but those of `open` jobs until there is room.
    fn prune(&self, open: &HashSet<String>) {
        let Ok(_one_at_a_time) = self.pruning.try_lock() else {
            return;
        };
        let Ok(mut files) = list(&self.dir) else {
            return;
        };
        files.sort_by_key(|(_, modified, _)| *modified);
        let mut used: u64 = files.iter().map(|(_, _, size)| taken(*size)).sum();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let goal = (self.total_limit as f64 * PRUNE_TO) as u64;
        for (name, _, size) in files {
            if used <= goal {
                break;
            }
            if !open.contains(&name) && std::fs::remove_file(self.dir.join(&name)).is_ok() {
                log::info!("deleted the output of job {name} ({size} bytes) to make room");
                used -= taken(size);
            }
        }
        self.used.store(used, Ordering::Relaxed);
    }
}

/// Free bytes of the disk that holds the folder.
pub(crate) fn free(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// What a file of this length takes.
fn taken(len: u64) -> u64 {
    len.max(FILE_MIN)
}

fn list(dir: &Path) -> io::Result<Vec<(String, std::time::SystemTime, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) else {
            continue;
        };
        files.push((name, metadata.modified()?, metadata.len()));
    }
    Ok(files)
}

/// The writing end of one job's file.
#[derive(Default)]
pub struct Spool {
    file: Option<File>,
    len: u64,
    seen: [u64; 2],
    full: bool,
    failed: bool,
    /// It is logged that the disk is nearly full.
    cramped: bool,
}

impl Spool {
    /// A job that has sent nothing yet, or, after a restart, is known to have sent so much.
    pub fn new(stdout: u64, stderr: u64) -> Self {
        Self {
            seen: [stdout, stderr],
            ..Self::default()
        }
    }

    /// Bytes of the file that hold whole records.
    pub fn written(&self) -> u64 {
        self.len
    }

    /// Bytes that the job has written to each stream, as far as is known.
    pub fn seen(&self) -> [u64; 2] {
        self.seen
    }

    /// Takes a piece of output; what was there before is left out, what does not fit is only counted.
    /// `open` names the jobs whose files must stay.
    pub fn output(
        &mut self,
        spools: &Spools,
        token: &str,
        stream: Stream,
        offset: u64,
        bytes: &[u8],
        open: impl FnOnce() -> HashSet<String>,
    ) {
        self.prepare(spools, token);
        let (kind, seen) = match stream {
            Stream::Stdout => (KIND_STDOUT, &mut self.seen[0]),
            Stream::Stderr => (KIND_STDERR, &mut self.seen[1]),
        };
        let Some(end) = offset.checked_add(bytes.len() as u64) else {
            return;
        };
        if end <= *seen {
            return;
        }
        let start = offset.max(*seen);
        *seen = end;
        let known = usize::try_from(start - offset).unwrap_or(bytes.len());
        self.append(spools, token, kind, start, &bytes[known..], open);
    }

    /// Takes a progress report, as JSON.
    pub fn progress(
        &mut self,
        spools: &Spools,
        token: &str,
        json: &str,
        open: impl FnOnce() -> HashSet<String>,
    ) {
        self.prepare(spools, token);
        self.append(spools, token, KIND_PROGRESS, 0, json.as_bytes(), open);
    }

    /// Opens the file; after a restart its end is found and a torn record cut off.
    fn prepare(&mut self, spools: &Spools, token: &str) {
        if self.file.is_some() {
            return;
        }
        let path = spools.path(token);
        let new = !path.exists();
        let opened = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .and_then(|file| {
                let (len, seen) = whole_records(&file)?;
                file.set_len(len)?;
                Ok((file, len, seen))
            });
        match opened {
            Ok((file, len, seen)) => {
                self.file = Some(file);
                self.len = len;
                if new {
                    spools.used.fetch_add(taken(len), Ordering::Relaxed);
                }
                self.seen = [self.seen[0].max(seen[0]), self.seen[1].max(seen[1])];
            }
            Err(e) => self.fail(token, &e),
        }
    }

    fn append(
        &mut self,
        spools: &Spools,
        token: &str,
        kind: u8,
        offset: u64,
        bytes: &[u8],
        open: impl FnOnce() -> HashSet<String>,
    ) {
        let size = (HEADER + bytes.len()) as u64;
        if self.full || self.len + size > spools.job_limit {
            self.full = true;
            return;
        }
        if spools.is_over() {
            spools.prune(&open());
            if spools.is_over() {
                return;
            }
        }
        if !spools.has_room(size) {
            if !std::mem::replace(&mut self.cramped, true) {
                log::error!(
                    "the output of job {token} will have a gap: the disk of {} has less than {} MiB left",
                    spools.dir.display(),
                    RESERVE >> 20
                );
            }
            return;
        }
        let (Some(file), Ok(length)) = (&mut self.file, u32::try_from(bytes.len())) else {
            return;
        };
        let mut record = Vec::with_capacity(HEADER + bytes.len());
        record.push(kind);
        record.extend_from_slice(&offset.to_le_bytes());
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(bytes);
        match file.write_all(&record) {
            Ok(()) => {
                let more = taken(self.len + size) - taken(self.len);
                self.len += size;
                self.failed = false;
                spools.used.fetch_add(more, Ordering::Relaxed);
            }
            Err(e) => {
                // A piece of the record may be there: the next one must not follow it.
                if file.set_len(self.len).is_err() {
                    self.full = true;
                }
                self.fail(token, &e);
            }
        }
    }

    fn fail(&mut self, token: &str, e: &io::Error) {
        if !self.failed {
            log::error!("the output of job {token} cannot be stored and will have a gap: {e}");
        }
        self.failed = true;
    }
}

/// Length of the whole records of a file, and how far each stream goes.
fn whole_records(file: &File) -> io::Result<(u64, [u64; 2])> {
    let size = file.metadata()?.len();
    let (mut position, mut seen) = (0, [0_u64; 2]);
    let mut header = [0; HEADER];
    while position + HEADER as u64 <= size {
        file.read_exact_at(&mut header, position)?;
        let (kind, offset, length) = parse(&header);
        let next = position + (HEADER + length) as u64;
        if kind > KIND_PROGRESS || length > RECORD_LIMIT || next > size {
            break;
        }
        if kind != KIND_PROGRESS {
            let seen = &mut seen[usize::from(kind)];
            *seen = (*seen).max(offset.saturating_add(length as u64));
        }
        position = next;
    }
    Ok((position, seen))
}

fn parse(header: &[u8; HEADER]) -> (u8, u64, usize) {
    let mut offset = [0; 8];
    offset.copy_from_slice(&header[1..9]);
    let mut length = [0; 4];
    length.copy_from_slice(&header[9..]);
    (
        header[0],
        u64::from_le_bytes(offset),
        u32::from_le_bytes(length) as usize,
    )
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Piece {
    Output {
        stream: Stream,
        offset: u64,
        bytes: Vec<u8>,
    },
    Gap {
        stream: Stream,
        offset: u64,
        length: u64,
    },
    /// JSON of a progress report.
    Progress(String),
}

/// A reading end; each reader has its own.
pub struct Reader {
    path: PathBuf,
    file: Option<File>,
    position: u64,
    expected: [u64; 2],
}

impl Reader {
    /// Reads from the beginning.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            position: 0,
            expected: [0; 2],
        }
    }

    /// How far it has read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next pieces, at most about 256 KiB; none at the end of the whole records.
    pub fn read(&mut self) -> io::Result<Vec<Piece>> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(e) => return Err(e),
            }
        }
        let Some(file) = &mut self.file else {
            return Ok(Vec::new());
        };
        let mut pieces = Vec::new();
        let mut taken = 0;
        file.seek(SeekFrom::Start(self.position))?;
        let mut buffered = io::BufReader::with_capacity(64 << 10, file);
        while taken < READ {
            let mut header = [0; HEADER];
            if !filled(&mut buffered, &mut header)? {
                break;
            }
            let (kind, offset, length) = parse(&header);
            if length > RECORD_LIMIT {
                break;
            }
            let mut bytes = vec![0; length];
            if !filled(&mut buffered, &mut bytes)? {
                break;
            }
            self.position += (HEADER + length) as u64;
            taken += HEADER + length;
            let stream = match kind {
                KIND_STDOUT => Stream::Stdout,
                KIND_STDERR => Stream::Stderr,
                _ => {
                    pieces.push(Piece::Progress(
                        String::from_utf8_lossy(&bytes).into_owned(),
                    ));
                    continue;
                }
            };
            pieces.extend(gap(&mut self.expected, stream, offset));
            self.expected[stream as usize] = offset.saturating_add(length as u64);
            pieces.push(Piece::Output {
                stream,
                offset,
                bytes,
            });
        }
        Ok(pieces)
    }

    /// At the end of a job: what of its streams was never stored.
    pub fn rest(&mut self, totals: [u64; 2]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        pieces.extend(gap(&mut self.expected, Stream::Stdout, totals[0]));
        pieces.extend(gap(&mut self.expected, Stream::Stderr, totals[1]));
        pieces
    }
}

fn gap(expected: &mut [u64; 2], stream: Stream, offset: u64) -> Option<Piece> {
    let expected = &mut expected[stream as usize];
    let from = *expected;
    let length = offset.checked_sub(from).filter(|length| *length > 0)?;
    *expected = offset;
    Some(Piece::Gap {
        stream,
        offset: from,
        length,
    })
}

/// False where the file ends first: the record is still being written.
fn filled(from: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;

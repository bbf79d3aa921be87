//! The journal on the disk: numbered segments of lines, of which the last one grows.

use super::line::{self, Found, Lines};
use super::record::is_event;
use super::store::{Counts, Fault, File, Folder};
use crate::message::payload::{Record, code};
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Segments of a full journal. Room is made by removing the oldest, so each is what a full journal forgets at once.
pub const SEGMENTS: u64 = 8;
/// Places in a segment are 32 bits.
const LARGEST_SEGMENT: u64 = 1 << 30;
/// Read at once where a whole segment is read...
pub const CHUNK: usize = 64 * 1024;
/// ...and where it is one record.
const SMALL_CHUNK: usize = 2 * 1024;

/// Bounds of the journal on the disk.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// All segments.
    pub bytes: u64,
    /// Whether to wait for the disk.
    pub sync: bool,
}

impl Limits {
    pub fn segment(&self) -> u64 {
        (self.bytes / SEGMENTS).clamp(1, LARGEST_SEGMENT)
    }
}

/// What is known about a segment without reading it.
#[derive(Debug, Clone, Default)]
pub struct Segment {
    pub number: u32,
    pub bytes: u64,
    pub records: u64,
    /// The first and the last id in it; 0 where there is none.
    pub first: u64,
    pub last: u64,
    /// Bytes of its records, but not of its events: all that is left where nothing is acknowledged.
    pub kept_bytes: u64,
}

impl Segment {
    pub fn name(&self) -> String {
        format!("{:010}.log", self.number)
    }

    /// Bytes of its events, and of what is corrupt.
    pub fn event_bytes(&self) -> u64 {
        self.bytes - self.kept_bytes.min(self.bytes)
    }

    /// Counts a record whose line has so many bytes.
    pub fn add(&mut self, record: &Record, bytes: u64) {
        if self.records == 0 {
            self.first = record.id;
        }
        self.records += 1;
        self.last = record.id;
        if !is_event(record.code) {
            self.kept_bytes += bytes;
        }
    }
}

/// Where a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub segment: u32,
    pub offset: u32,
}

/// What is to be kept about a record of a job.
#[derive(Debug, Clone, Copy)]
pub struct Note {
    hash: u64,
    offset: u32,
    is_end: bool,
}

impl Note {
    pub fn of(record: &Record, hasher: &RandomState, offset: u64) -> Option<Self> {
        if !code::is_job(record.code) {
            return None;
        }
        Some(Self {
            hash: hasher.hash_one(&record.token),
            offset: u32::try_from(offset).ok()?,
            is_end: code::is_end(record.code),
        })
    }
}

/// Where reading goes on.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    id: u64,
    segment: u32,
    offset: u64,
}

/// See the module. After a [`Fault`] only reading makes sense.
#[derive(Debug)]
pub struct Disk {
    pub folder: Arc<dyn Folder>,
    /// Names the journal.
    pub id: String,
    pub limits: Limits,
    /// Oldest first; never empty.
    pub segments: Vec<Segment>,
    /// The last segment's.
    pub file: Box<dyn File>,
    /// The one that was last read, of the others.
    pub reader: Option<(u32, Box<dyn File>)>,
    /// Where the last record about each job is, by a hash of its token: small, and what is there is checked.
    pub tokens: HashMap<u64, Place>,
    pub hasher: RandomState,
    pub cursor: Option<Cursor>,
    /// The last id that is surely on the disk.
    pub synced: u64,
    /// There is more that is not.
    pub dirty: bool,
    sync_failed: bool,
    /// The last segment before the last line, to take that back.
    before: Segment,
    pub counts: Counts,
    pub damaged: u64,
}

impl Disk {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        folder: Arc<dyn Folder>,
        id: String,
        limits: Limits,
        segments: Vec<Segment>,
        file: Box<dyn File>,
        counts: Counts,
    ) -> Self {
        Self {
            folder,
            id,
            limits,
            segments,
            file,
            reader: None,
            tokens: HashMap::new(),
            hasher: RandomState::new(),
            cursor: None,
            synced: 0,
            dirty: false,
            sync_failed: false,
            before: Segment::default(),
            counts,
            damaged: 0,
        }
    }

    pub fn fault(&self, act: &str, name: &str, cause: io::Error) -> Fault {
        Fault::new(act, &*self.folder, name, cause)
    }

    /// The segment that grows.
    pub fn active(&self) -> &Segment {
        static NONE: Segment = Segment {
            number: 0,
            bytes: 0,
            records: 0,
            first: 0,
            last: 0,
            kept_bytes: 0,
        };
        self.segments.last().unwrap_or(&NONE)
    }

    /// The oldest id; 0 where there is none.
    pub fn first(&self) -> u64 {
        let first = self.segments.iter().find(|s| s.records > 0);
        first.map_or(0, |s| s.first)
    }

    /// The newest id.
    pub fn last(&self) -> u64 {
        self.segments.iter().map(|s| s.last).max().unwrap_or(0)
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    pub fn fits(&self, needed: u64) -> bool {
        self.bytes() + needed <= self.limits.bytes
    }

    /// Appends a record by one write, not synced.
    pub fn append(&mut self, record: &Record, acked: u64) -> Result<(), Fault> {
        let name = self.active().name();
        let line = line::write(acked, record).map_err(|e| self.fault("write", &name, e))?;
        let bytes = line.len() as u64;
        let active = self.active();
        if active.bytes > 0 && active.bytes + bytes > self.limits.segment() {
            self.roll()?;
        }
        self.before = self.active().clone();
        let at = self.before.bytes;
        if let Err(e) = self.file.write_at(line.as_bytes(), at) {
            // Half a line would be cut off at the next start anyway.
            let _ = self.file.set_length(at);
            return Err(self.fault("write", &self.before.name(), e));
        }
        self.counts.bytes += bytes;
        self.dirty = true;
        let place = (self.before.number, at);
        if let Some(active) = self.segments.last_mut() {
            active.bytes += bytes;
            active.add(record, bytes);
        }
        self.remember(record, place.0, place.1);
        Ok(())
    }

    /// Takes the last line back, as far as the disk lets it.
    pub fn take_back(&mut self, token: &str) {
        let _ = self.file.set_length(self.before.bytes);
        if let Some(active) = self.segments.last_mut() {
            *active = self.before.clone();
        }
        self.tokens.remove(&self.hasher.hash_one(token));
    }

    /// Begins the next segment.
    pub fn roll(&mut self) -> Result<(), Fault> {
        // Only the last segment may have a torn end.
        self.sync()?;
        let last = self.active();
        let Some(number) = last.number.checked_add(1) else {
            let cause = io::Error::other("there is no higher number for a segment");
            return Err(self.fault("go on behind", &last.name(), cause));
        };
        let segment = Segment {
            number,
            ..Segment::default()
        };
        self.file = self
            .folder
            .create(&segment.name())
            .map_err(|e| self.fault("create", &segment.name(), e))?;
        self.segments.push(segment);
        self.sync_names()
    }

    pub fn sync_names(&mut self) -> Result<(), Fault> {
        self.folder.sync().map_err(|e| self.fault("sync", "", e))?;
        self.counts.syncs += 1;
        Ok(())
    }

    /// Waits until all records are on the disk.
    pub fn sync(&mut self) -> Result<(), Fault> {
        if self.dirty && self.limits.sync {
            self.file.sync().map_err(|e| {
                self.sync_failed = true;
                self.fault("sync", &self.active().name(), e)
            })?;
            self.counts.syncs += 1;
            self.synced = self.last();
            self.dirty = false;
        }
        Ok(())
    }

    /// After a fault: whether what the last segment shows may not be on the disk. What a sync has failed for once, no
    /// later one may write.
    pub fn is_suspect(&mut self) -> bool {
        self.sync_failed || self.sync().is_err()
    }

    /// The last id that a cut of power leaves here, as far as anybody has asked for that.
    pub fn safe(&self) -> u64 {
        if self.limits.sync {
            self.synced
        } else {
            self.last()
        }
    }

    /// Whether this record is safe here, and can be read.
    pub fn holds(&mut self, id: u64) -> bool {
        let before = id.checked_sub(1).filter(|_| id <= self.safe());
        let found = before.map(|before| self.next(before, true));
        matches!(found, Some(Ok(Some(record))) if record.id == id)
    }

    /// Keeps the place of a record about a job.
    pub fn remember(&mut self, record: &Record, segment: u32, offset: u64) {
        if let Some(note) = Note::of(record, &self.hasher, offset) {
            self.remember_at(note, segment);
        }
    }

    /// An `accepted` never hides an end: a copy under another number may follow that.
    pub fn remember_at(&mut self, note: Note, segment: u32) {
        let place = Place {
            segment,
            offset: note.offset,
        };
        let known = self.tokens.entry(note.hash).or_insert(place);
        if note.is_end {
            *known = place.max(*known);
        }
    }

    /// Whether there is a record about the job.
    pub fn knows(&self, token: &str) -> bool {
        self.tokens.contains_key(&self.hasher.hash_one(token))
    }

    /// The end of a job, or its `accepted` where there is none.
    pub fn find(&mut self, token: &str) -> Result<Option<Record>, Fault> {
        let Some(place) = self.tokens.get(&self.hasher.hash_one(token)).copied() else {
            return Ok(None);
        };
        let Some(at) = self.segments.iter().position(|s| s.number == place.segment) else {
            return Ok(None);
        };
        let mut record = None;
        self.scan(at, place.offset.into(), SMALL_CHUNK, |found| {
            record = Some(found.record);
            ControlFlow::Break(())
        })?;
        Ok(record.filter(|r| r.token == token && code::is_job(r.code)))
    }

    /// The first record behind `id`. Reading on from the last one costs no search. Of a `broken` disk, what can be
    /// read.
    pub fn next(&mut self, id: u64, broken: bool) -> Result<Option<Record>, Fault> {
        if id >= self.last() {
            return Ok(None);
        }
        let cursor = self.cursor.filter(|c| c.id == id);
        let start = cursor.and_then(|c| self.segments.iter().position(|s| s.number == c.segment));
        let mut offset = start.and(cursor).map_or(0, |c| c.offset);
        for at in start.unwrap_or(0)..self.segments.len() {
            if self.segments[at].last <= id {
                offset = 0;
                continue;
            }
            let segment = self.segments[at].number;
            let mut next = None;
            let chunk = if cursor.is_some() { SMALL_CHUNK } else { CHUNK };
            let scanned = self.scan(at, offset, chunk, |found| {
                if found.record.id <= id {
                    return ControlFlow::Continue(());
                }
                next = Some(found);
                ControlFlow::Break(())
            });
            if !broken {
                scanned?;
            }
            if let Some(found) = next {
                self.cursor = Some(Cursor {
                    id: found.record.id,
                    segment,
                    offset: found.end,
                });
                return Ok(Some(found.record));
            }
            offset = 0;
        }
        Ok(None)
    }

    /// The cursor and the open file of a segment that is rewritten are void.
    pub fn forget_places(&mut self) {
        self.cursor = None;
        self.reader = None;
    }

    /// Shows the records of a segment from `offset` on.
    pub fn scan(
        &mut self,
        at: usize,
        offset: u64,
        chunk: usize,
        mut see: impl FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let Some(segment) = self.segments.get(at).cloned() else {
            return Ok(());
        };
        let fault = |e| Fault::new("read", &*self.folder, &segment.name(), e);
        let file = if segment.number == self.active().number {
            &*self.file
        } else {
            if self.reader.as_ref().is_none_or(|r| r.0 != segment.number) {
                let file = self.folder.open(&segment.name(), false).map_err(fault)?;
                self.reader = Some((segment.number, file));
            }
            match &self.reader {
                Some((_, file)) => &**file,
                None => return Ok(()),
            }
        };
        let mut lines = Lines::new(file, offset, segment.bytes, chunk);
        // Damage was counted when the journal was opened.
        let mut seen = 0;
        while let Some(found) = lines.next().map_err(fault)? {
            let id = found.record.id;
            if id <= seen || !(segment.first..=segment.last).contains(&id) {
                continue;
            }
            seen = id;
            if see(found).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// How many records are behind `id`.
    pub fn count_behind(&mut self, id: u64) -> Result<u64, Fault> {
        let mut count = 0;
        for at in 0..self.segments.len() {
            let segment = &self.segments[at];
            if segment.first > id {
                count += segment.records;
            } else if segment.last > id {
                self.scan(at, 0, CHUNK, |found| {
                    count += u64::from(found.record.id > id);
                    ControlFlow::Continue(())
                })?;
            }
        }
        Ok(count)
    }
}

//! Followed files: lines that others append, over rotation by rename and by truncation.
//!
//! A timer looks at them, and no watch: a file may be on a file system that tells nothing, or not exist yet. How far each was
//! read is kept in STATE/events.json, but seldom written, since flash wears: what was stored after that is counted in the
//! journal at the next start, and skipped.
//!
//! A file is known by the hash of its first bytes, so that it is found again under the name that rotation gave it, also where
//! that was a copy.

use super::gate::Bucket;
use super::positions::{HEAD, POSITIONS, Saved, hash, load};
use super::{Event, Events, Ready};
use crate::cef::syslog;
use crate::journal::store::{Counts, Directory, replace};
use crate::message::payload::{self, code};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often they are looked at...
const LOOK: Duration = Duration::from_secs(2);
/// ...and while one has more to read than its rate lets in.
const SOON: Duration = Duration::from_millis(200);
/// Pause where the journal has no room.
const FULL: Duration = Duration::from_secs(5);
/// A file that was renamed is read for so long yet: who writes may still have it open.
const GRACE: Duration = Duration::from_secs(2);
/// Positions are written so often at most.
const SAVE: Duration = Duration::from_mins(1);
/// Entries of a folder that are looked at for a file that was renamed.
const ENTRIES: usize = 1_000;
/// Pieces, each of which holds a line, that are read of one file before the others have their turn.
const PIECES: usize = 16;
/// Bytes behind a line.
const SLACK: usize = 2;

/// All followed files.
pub struct Files {
    list: Vec<Followed>,
    folder: Arc<Directory>,
    /// Since when positions are not written.
    dirty: Option<Instant>,
    /// Where one begins is not written yet.
    begun: bool,
    /// The journal's last sequence when all before the positions to be written was kept.
    kept: u64,
    /// They could not be, and that was said.
    said: bool,
}

struct Followed {
    path: PathBuf,
    source: String,
    open: Option<Open>,
    /// Where it was read to before the start.
    saved: Option<Saved>,
    /// Events behind that which the journal has already.
    known: u64,
    /// The sequence of the last event that was stored since the start.
    last: u64,
    /// It was not there, or another one was: it is read from its beginning.
    whole: bool,
    /// It is followed for the first time: where it begins is written at once.
    begun: bool,
    /// Up to here a power cut takes nothing of what it gave: this is written.
    kept: Option<Saved>,
    problem: Option<String>,
    bucket: Bucket,
}

struct Open {
    file: File,
    at: Saved,
    /// Within a line that is too long.
    skipping: bool,
    /// Since when another file has its name.
    replaced: Option<Instant>,
}

/// What one look has found.
enum Look {
    /// All that is there was read.
    End,
    /// There is more.
    More,
    /// There is more, above its rate.
    Limited,
    /// The journal takes no more.
    Full,
}

impl Files {
    /// Knows where each was read to. Opens none yet.
    pub fn open(paths: &[PathBuf], rate: u32, state: &Path, events: &Events) -> Self {
        let saved = if paths.is_empty() {
            Value::Null
        } else {
            load(&state.join(POSITIONS))
        };
        let now = Instant::now();
        let list = paths.iter().map(|path| {
            let source = format!("file{}", path.display());
            let saved = saved["files"]
                .get(&*path.to_string_lossy())
                .map(Saved::read);
            Followed {
                path: path.clone(),
                source,
                open: None,
                saved,
                known: 0,
                last: 0,
                whole: false,
                begun: false,
                kept: saved,
                problem: None,
                bucket: Bucket::new(rate, now),
            }
        });
        let mut files = Self {
            list: list.collect(),
            folder: Directory::new(state, false),
            dirty: None,
            begun: false,
            kept: events.journal.last(),
            said: false,
        };
        if let Some(sequence) = saved["sequence"].as_u64() {
            files.kept = sequence;
            files.count_known(events, sequence);
        }
        files
    }

    /// Counts what was stored after the positions were written: that is not read again.
    fn count_known(&mut self, events: &Events, sequence: u64) {
        let mut id = sequence;
        while let Some(record) = events.journal.next(id) {
            id = record.id;
            if record.code != code::EVENT {
                continue;
            }
            let data: Value = payload::from_json(record.data.get()).unwrap_or_default();
            let mut list = self.list.iter_mut();
            if let Some(file) = list.find(|f| data["source"] == *f.source && f.saved.is_some()) {
                file.known += 1;
            }
        }
    }

    /// When to look first, if there is anything to look at.
    pub fn first_look(&self) -> Option<Instant> {
        (!self.list.is_empty()).then(Instant::now)
    }

    /// Stores what was appended; says when to look again.
    pub fn look(&mut self, events: &Events, buffer: &mut Vec<u8>) -> Duration {
        let (mut pause, mut urgent) = (LOOK, false);
        for file in &mut self.list {
            let before = file.open.as_ref().map(|open| open.at);
            let next = match file.look(events, buffer) {
                Ok(Look::End) => LOOK,
                Ok(Look::More | Look::Limited) => SOON,
                Ok(Look::Full) => FULL,
                Err(why) => {
                    if file.problem.as_ref() != Some(&why) {
                        log::warn!("events: {} is not followed: {why}", file.path.display());
                    }
                    file.problem = Some(why);
                    let left = file.open.take().map(|open| open.at);
                    file.saved = left.or(file.saved);
                    LOOK
                }
            };
            pause = pause.min(next);
            if file.open.as_ref().map(|open| open.at) != before {
                self.dirty.get_or_insert_with(Instant::now);
            }
            urgent |= std::mem::take(&mut file.begun);
        }
        self.begun |= urgent;
        if urgent || self.dirty.is_some_and(|since| since.elapsed() >= SAVE) {
            self.save(events);
        }
        pause
    }

    /// As `agent.status` has them.
    pub fn report(&self) -> impl Iterator<Item = (String, Option<String>)> {
        let of = |file: &Followed| (file.source.clone(), file.problem.clone());
        self.list.iter().map(of)
    }

    /// Writes the positions, where they have changed. The events before them are on the disk first, or Poseidon has them:
    /// else a power cut could take what nobody reads again.
    pub fn save(&mut self, events: &Events) {
        if self.dirty.is_none() {
            return;
        }
        // Where it comes to nothing it is tried again.
        self.dirty = Some(Instant::now());
        events.journal.sync();
        let last = self.list.iter().map(|file| file.last).max();
        let is_kept = last.is_none_or(|last| events.journal.keeps(last));
        if is_kept {
            self.kept = events.journal.last();
            for file in &mut self.list {
                file.kept = file.open.as_ref().map(|open| open.at).or(file.saved);
            }
        } else if !self.begun {
            return;
        }
        let mut files = Map::new();
        for file in &self.list {
            if let Some(at) = file.kept {
                files.insert(file.path.to_string_lossy().into_owned(), at.write());
            }
        }
        let text = json!({ "sequence": self.kept, "files": files }).to_string();
        match replace(&*self.folder, POSITIONS, &text, &mut Counts::default()) {
            Ok(()) => {
                (self.begun, self.said) = (false, false);
                self.dirty = self.dirty.filter(|_| !is_kept);
            }
            Err(fault) if self.said => log::debug!("events: {fault}"),
            Err(fault) => {
                self.said = true;
                log::error!(
                    "events: after a restart, files may be read again from an earlier place: {fault}"
                );
            }
        }
    }
}

/// Opens what may be followed. A device or a pipe is not even opened: that alone can do something.
fn open(path: &Path) -> io::Result<File> {
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
    if !fs::metadata(path)?.is_file() {
        return Err(refused());
    }
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(refused());
    }
    Ok(file)
}

impl Open {
    fn new(file: File, offset: u64) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        let mut open = Self {
            file,
            at: Saved {
                inode,
                ..Saved::default()
            },
            skipping: false,
            replaced: None,
        };
        // Also over a restart the tail of a line that is too long is no line. A hole is no line either.
        let mut before = [b'\n'];
        if let Some(at) = offset.checked_sub(1) {
            open.file.read_at(&mut before, at)?;
        }
        open.skipping = !matches!(before, [b'\n' | 0]);
        open.move_to(offset);
        Ok(open)
    }

    /// Goes on behind `offset`. The head grows with it, until it is whole.
    fn move_to(&mut self, offset: u64) {
        self.at.offset = offset;
        let head = usize::try_from(offset).unwrap_or(HEAD).min(HEAD);
        if (self.at.head < head || offset == 0)
            && let Some(hash) = hash(&self.file, head)
        {
            (self.at.head, self.at.hash) = (head, hash);
        }
    }
}

impl Followed {
    fn look(&mut self, events: &Events, buffer: &mut Vec<u8>) -> Result<Look, String> {
        if self.open.is_none() {
            self.open = self.find().map_err(|e| e.to_string())?;
            self.problem = None;
        }
        let path = self.path.clone();
        let Some(open) = &mut self.open else {
            // It does not exist yet.
            self.whole = true;
            return Ok(Look::End);
        };
        self.saved = None;
        // Each time, also where its length is what was read: it may be another file's that grew to that.
        if !open.at.fits(&open.file) {
            // Truncated: what was not read of it may be in a copy.
            log::info!("events: {} was truncated", path.display());
            let copy = predecessor(&path, &open.at).filter(|copy| copy.at.inode != open.at.inode);
            self.whole = true;
            self.known = 0;
            self.open = match copy {
                Some(copy) => Some(copy),
                None => Some(self.again().map_err(|e| e.to_string())?),
            };
            return Ok(Look::More);
        }
        let mut read = Look::More;
        for _ in 0..PIECES {
            read = self.read(events, buffer)?;
            if !matches!(read, Look::More) {
                break;
            }
        }
        if !matches!(read, Look::End) {
            return Ok(read);
        }
        let Some(open) = &mut self.open else {
            return Ok(Look::End);
        };
        let now = Instant::now();
        let is_other = match fs::metadata(&path) {
            Ok(found) => found.ino() != open.at.inode,
            // Removed, and not only on its way from one name to the other.
            Err(_) => open.file.metadata().is_ok_and(|m| m.nlink() == 0),
        };
        if !is_other {
            open.replaced = None;
            return Ok(Look::End);
        }
        let since = *open.replaced.get_or_insert(now);
        if now.saturating_duration_since(since) >= GRACE {
            self.whole = true;
            self.open = None;
            return Ok(Look::More);
        }
        Ok(Look::End)
    }

    /// The file at the path anew, from its beginning.
    fn again(&self) -> io::Result<Open> {
        Open::new(open(&self.path)?, 0)
    }

    /// What to read first: where it was left, also under another name, else the file from its end, or from its beginning where
    /// it is new. None where there is none.
    fn find(&mut self) -> io::Result<Option<Open>> {
        let there = match open(&self.path) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let Some(saved) = &self.saved else {
            let Some(file) = there else { return Ok(None) };
            let end = file.metadata()?.len();
            let begun = Open::new(file, if self.whole { 0 } else { end })?;
            self.begun = true;
            self.kept.get_or_insert(begun.at);
            return Ok(Some(begun));
        };
        if let Some(file) = there {
            if saved.fits(&file) {
                return Open::new(file, saved.offset).map(Some);
            }
            if let Some(before) = predecessor(&self.path, saved) {
                return Ok(Some(before));
            }
            self.known = 0;
            log::warn!(
                "events: {} is another file than before the start, and that is not beside it: what it held is not read",
                self.path.display()
            );
            return Open::new(file, 0).map(Some);
        }
        Ok(predecessor(&self.path, saved))
    }

    /// Reads whole lines, as many as are there and may come in.
    fn read(&mut self, events: &Events, buffer: &mut Vec<u8>) -> Result<Look, String> {
        let Some(open) = &mut self.open else {
            return Ok(Look::End);
        };
        buffer.resize(events.line_bytes + SLACK, 0);
        let n = open
            .file
            .read_at(buffer, open.at.offset)
            .map_err(|e| e.to_string())?;
        let bytes = &buffer[..n];
        if n == 0 {
            return Ok(Look::End);
        }
        // A hole: who writes went on behind the place at which the file was cut.
        let hole = bytes.iter().take_while(|b| **b == 0).count();
        if hole > 0 {
            open.move_to(open.at.offset + hole as u64);
            return Ok(Look::More);
        }
        if !bytes.contains(&b'\n') {
            if n < buffer.len() && !open.skipping {
                // The rest of the line is yet to come.
                return Ok(Look::End);
            }
            if !open.skipping {
                let most = events.line_bytes;
                let why = format!("{}: a line has more than {most} bytes", self.source);
                events.refuse(1, why);
            }
            open.skipping = true;
            open.move_to(open.at.offset + n as u64);
            return Ok(Look::More);
        }
        let mut taken = 0;
        let skipping = open.skipping;
        let (mut known, mut passed, mut wrong) = (self.known, 0, Vec::new());
        let mut ready: Vec<Ready> = Vec::new();
        let mut more = true;
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            if line.last() != Some(&b'\n') {
                break;
            }
            let skipped = std::mem::take(&mut open.skipping);
            match lines_event(events, &self.source, line) {
                _ if skipped => {}
                None => passed += 1,
                Some(Err(why)) => wrong.push(why),
                Some(Ok(_)) if known > 0 => known -= 1,
                Some(Ok(event)) => {
                    if !self.bucket.take(Instant::now()) {
                        more = false;
                        break;
                    }
                    ready.push(event);
                }
            }
            taken += line.len();
        }
        match events.put_all(ready) {
            Ok(last) => self.last = self.last.max(last),
            Err(error) => {
                log::debug!("events: {} waits: {}", self.source, error.message);
                // It is read again from the same place.
                open.skipping = skipping;
                return Ok(Look::Full);
            }
        }
        self.known = known;
        events.tally().passed += passed;
        if let Some(why) = wrong.pop() {
            events.refuse(wrong.len() as u64 + 1, why);
        }
        open.move_to(open.at.offset + taken as u64);
        Ok(if more { Look::More } else { Look::Limited })
    }
}

/// The event in a line, or what is wrong with it; none where it holds none.
fn lines_event(events: &Events, source: &str, line: &[u8]) -> Option<Result<Ready, String>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Ok(line) = std::str::from_utf8(line) else {
        let is_cef = line.windows(4).any(|w| w == crate::cef::MARK.as_bytes());
        return is_cef.then(|| Err(format!("{source}: a line is not UTF-8")));
    };
    syslog::find(line)?;
    let event = Event {
        line: line.to_owned(),
        ..Event::default()
    };
    let checked = events.check(source, &event, None);
    Some(checked.map_err(|error| format!("{source}: {}", error.message)))
}

/// The file that was read to `saved`, under the name that rotation has given it: beside, and with a longer name.
fn predecessor(path: &Path, saved: &Saved) -> Option<Open> {
    // Nothing was read of it, so nothing tells it from others.
    if saved.head == 0 {
        return None;
    }
    let name = path.file_name()?.to_string_lossy().into_owned();
    let entries = fs::read_dir(path.parent()?).ok()?.take(ENTRIES).flatten();
    let beside = entries.filter(|e| {
        let other = e.file_name();
        let other = other.to_string_lossy();
        other.starts_with(&name) && other != name
    });
    let mut best: Option<File> = None;
    for entry in beside {
        let Some(file) = open(&entry.path()).ok().filter(|f| saved.fits(f)) else {
            continue;
        };
        let is_same = file.metadata().is_ok_and(|m| m.ino() == saved.inode);
        if is_same || best.is_none() {
            best = Some(file);
        }
        if is_same {
            break;
        }
    }
    let mut open = Open::new(best?, saved.offset).ok()?;
    open.replaced = Some(Instant::now());
    Some(open)
}

//! The sequence: numbers that never repeat on this instance, whatever is lost of the journal.
//!
//! STATE/sequence holds a bound. No number above it is used before a higher one is on the disk, and a start begins
//! behind it: so a number that was sent and then lost in a power cut is never given to something else.
//!
//! That does not help where the file is lost, restored from a backup, or could not be written, for example when a
//! device with an old instance id starts with empty folders. So what is numbered after a start is in doubt until a
//! server has said what it has stored of this instance; the file says from where, because the next start may come first.

use super::line::{self, LAST_ID};
use super::store::{Counts, Fault, Folder, read_small, replace};
use std::sync::Arc;

/// The file's name. It holds `BOUND`, or `BOUND DOUBT`, with a checksum in front.
const NAME: &str = "sequence";
/// Numbers reserved at once: one write in so many records.
const STEP: u64 = 10_000;
/// Numbers beyond this are nobody's: so there is room behind every number that is believed.
pub const BELIEVED: u64 = LAST_ID / 2;

/// See the module.
#[derive(Debug)]
pub struct Sequence {
    folder: Arc<dyn Folder>,
    last: u64,
    /// Numbers behind this one are in doubt, until `met`.
    base: u64,
    met: bool,
    /// A number has been given.
    used: bool,
    /// What the file says; `None` while it could not be read.
    file: Option<Reserved>,
    /// What this has written.
    pub counts: Counts,
}

/// What the file says.
#[derive(Debug, Clone, Copy)]
struct Reserved {
    bound: u64,
    doubt: Option<u64>,
}

impl Sequence {
    /// Behind nothing yet; [`Self::reserve`] reads the file.
    pub fn new(folder: Arc<dyn Folder>) -> Self {
        Self {
            folder,
            last: 0,
            base: 0,
            met: false,
            used: false,
            file: None,
            counts: Counts::default(),
        }
    }

    /// The last number that was given, or is not to be given.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Behind which number they are in doubt.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Numbers up to here are in use.
    pub fn raise(&mut self, last: u64) {
        self.last = self.last.max(last);
    }

    /// The journal of earlier lives goes up to here.
    pub fn found(&mut self, last: u64) {
        self.raise(last);
        if self.file.is_none_or(|file| file.doubt.is_none()) {
            self.base = self.base.max(last);
        }
    }

    /// The next number.
    pub fn take(&mut self) -> u64 {
        self.used = true;
        self.last = self.last.saturating_add(1).min(LAST_ID);
        self.last
    }

    /// Makes the next number safe to use.
    pub fn reserve(&mut self) -> Result<(), Fault> {
        let file = match self.file {
            Some(file) => file,
            None => self.read()?,
        };
        if self.last < file.bound {
            return Ok(());
        }
        self.write(self.last + STEP)
    }

    /// A server has been met, and what it knows has been taken into account.
    pub fn settle(&mut self) -> Result<(), Fault> {
        self.met = true;
        match self.file {
            Some(file) if file.doubt.is_some() => self.write(file.bound.max(self.last)),
            _ => Ok(()),
        }
    }

    fn write(&mut self, bound: u64) -> Result<(), Fault> {
        let doubt = (!self.met).then_some(self.base);
        let text = match doubt {
            Some(doubt) => format!("{bound} {doubt}"),
            None => bound.to_string(),
        };
        replace(&*self.folder, NAME, &line::seal(&text), &mut self.counts)?;
        self.file = Some(Reserved { bound, doubt });
        Ok(())
    }

    /// What an earlier life reserved is not used again.
    fn read(&mut self) -> Result<Reserved, Fault> {
        self.folder
            .prepare()
            .map_err(|e| Fault::new("use", &*self.folder, "", e))?;
        let bytes = read_small(&*self.folder, NAME)?;
        let known = bytes.as_deref().and_then(parse);
        if known.is_none() && bytes.is_some() {
            log::warn!(
                "{} is damaged: the sequence goes on behind the journal's last record",
                self.folder.path().join(NAME).display()
            );
        }
        let file = known.unwrap_or(Reserved {
            bound: 0,
            doubt: None,
        });
        self.raise(file.bound);
        if !self.used {
            self.base = self.last;
        }
        self.base = self.base.min(file.doubt.unwrap_or(u64::MAX));
        self.file = Some(file);
        Ok(file)
    }
}

/// The content of the file.
fn parse(bytes: &[u8]) -> Option<Reserved> {
    let text = line::unseal(bytes.strip_suffix(b"\n")?)?;
    let (bound, doubt) = match text.split_once(' ') {
        Some((bound, doubt)) => (bound, Some(doubt.parse().ok()?)),
        None => (text, None),
    };
    let bound = bound.parse().ok()?;
    let sane = bound <= BELIEVED && doubt.is_none_or(|doubt| doubt <= bound);
    sane.then_some(Reserved { bound, doubt })
}

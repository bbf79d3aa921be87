//! The sequence: numbers that never repeat on this instance, whatever is lost of the journal.
//!
//! STATE/sequence holds a bound. No number above it is used before a higher one is on the disk, and a start begins
//! behind it: so a number that was sent and then lost in a power cut is never given to something else.
//!
//! Where the file is missing, damaged or cannot be written, earlier lives may have used the numbers that are given
//! now: from then on they are in doubt. The first server that says what it has stored ends the doubt, and until then
//! the file remembers where it begins.

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
    /// What the file says; `None` while it could not be read.
    bound: Option<u64>,
    /// Numbers behind this one are in doubt.
    doubt: Option<u64>,
    /// The file says so.
    doubt_saved: bool,
    /// A server has ended all doubt for this life.
    met: bool,
    /// What this has written.
    pub counts: Counts,
}

impl Sequence {
    /// Behind nothing yet; [`Self::reserve`] reads the file.
    pub fn new(folder: Arc<dyn Folder>) -> Self {
        Self {
            folder,
            last: 0,
            bound: None,
            doubt: None,
            doubt_saved: false,
            met: false,
            counts: Counts::default(),
        }
    }

    /// The last number that was given, or is not to be given.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Numbers up to here are in use.
    pub fn raise(&mut self, last: u64) {
        self.last = self.last.max(last);
    }

    /// Behind which number they are in doubt.
    pub fn doubt(&self) -> Option<u64> {
        self.doubt
    }

    /// Numbers up to here are known after all.
    pub fn known(&mut self, last: u64) {
        self.raise(last);
        self.doubt = self.doubt.map(|doubt| doubt.max(last));
    }

    /// The next number.
    pub fn take(&mut self) -> u64 {
        if self.bound.is_none_or(|bound| self.last >= bound) && !self.met {
            self.doubt.get_or_insert(self.last);
        }
        self.last = self.last.saturating_add(1).min(LAST_ID);
        self.last
    }

    /// Makes the next number safe to use.
    pub fn reserve(&mut self) -> Result<(), Fault> {
        let bound = match self.bound {
            Some(bound) => bound,
            None => self.read()?,
        };
        if self.last < bound {
            return Ok(());
        }
        self.write(self.last + STEP)
    }

    /// A server has been met, and what it knows has been taken into account: there is no doubt any more.
    pub fn settle(&mut self) -> Result<(), Fault> {
        self.met = true;
        self.doubt = None;
        match self.bound {
            Some(bound) if self.doubt_saved => self.write(bound.max(self.last)),
            _ => Ok(()),
        }
    }

    fn write(&mut self, bound: u64) -> Result<(), Fault> {
        let text = match self.doubt {
            Some(doubt) => format!("{bound} {doubt}"),
            None => bound.to_string(),
        };
        replace(&*self.folder, NAME, &line::seal(&text), &mut self.counts)?;
        self.bound = Some(bound);
        self.doubt_saved = self.doubt.is_some();
        Ok(())
    }

    /// What an earlier life reserved is not used again.
    fn read(&mut self) -> Result<u64, Fault> {
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
        let (bound, doubt) = known.unwrap_or((0, Some(self.last)));
        if !self.met {
            self.doubt = match (self.doubt, doubt) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            self.doubt_saved = known.is_some() && doubt.is_some();
        }
        self.raise(bound);
        self.bound = Some(bound);
        Ok(bound)
    }
}

/// Bound and doubt.
fn parse(bytes: &[u8]) -> Option<(u64, Option<u64>)> {
    let text = line::unseal(bytes.strip_suffix(b"\n")?)?;
    let (bound, doubt) = match text.split_once(' ') {
        Some((bound, doubt)) => (bound, Some(doubt.parse().ok()?)),
        None => (text, None),
    };
    let bound = bound.parse().ok()?;
    (bound <= BELIEVED && doubt.is_none_or(|doubt| doubt <= bound)).then_some((bound, doubt))
}

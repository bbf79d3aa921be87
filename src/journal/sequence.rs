//! The sequence: numbers that never repeat on this instance, whatever is lost of the journal.
//!
//! STATE/sequence holds a bound. No number above it is used before a higher one is on the disk, and a start begins
//! behind it: so a number that was sent and then lost in a power cut is never given to something else.

use super::line::{self, LAST_ID};
use super::store::{Counts, Fault, Folder, read_small, replace};
use std::sync::Arc;

/// The file's name.
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

    /// The next number.
    pub fn take(&mut self) -> u64 {
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
        let bound = self.last + STEP;
        let text = line::seal(&bound.to_string());
        replace(&*self.folder, NAME, &text, &mut self.counts)?;
        self.bound = Some(bound);
        Ok(())
    }

    /// What an earlier life reserved is not used again.
    fn read(&mut self) -> Result<u64, Fault> {
        self.folder
            .prepare()
            .map_err(|e| Fault::new("use", &*self.folder, "", e))?;
        let bound = match read_small(&*self.folder, NAME)? {
            None => 0,
            Some(bytes) => parse(&bytes).unwrap_or_else(|| {
                log::warn!(
                    "{} is damaged: the sequence goes on behind the journal's last record",
                    self.folder.path().join(NAME).display()
                );
                0
            }),
        };
        self.raise(bound);
        self.bound = Some(bound);
        Ok(bound)
    }
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let bound = line::unseal(bytes.strip_suffix(b"\n")?)?.parse().ok()?;
    (bound <= BELIEVED).then_some(bound)
}

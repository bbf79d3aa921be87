//! Time zones: how far local time is from UTC, and when that changes.
//!
//! A POSIX TZ string, which is all that a small router has (`/etc/TZ`), or a file of the system's zones. Not by the C library:
//! that knows one zone for the whole process.

use super::posix::Rule;
use super::tzif;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Where systems keep their zones.
const FOLDER: &str = "/usr/share/zoneinfo";
/// Longest name or TZ string, in bytes.
pub const ZONE_LIMIT: usize = 64;
/// Longest file of a zone; the largest there are have some 4 kB.
const FILE_LIMIT: u64 = 64 * 1024;

/// A stretch of time with one offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its first second; none where nothing was before.
    pub start: Option<i64>,
    /// The offset until then.
    pub before: i64,
    /// Seconds that local time is ahead of UTC.
    pub offset: i64,
    /// The first second behind it.
    pub end: Option<i64>,
}

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The offset before the first of the changes.
    pub(super) first: i64,
    /// When another offset began, and which.
    pub(super) changes: Vec<(i64, i64)>,
    /// What holds from the last of them on.
    pub(super) rule: Rule,
}

impl Zone {
    /// What a name or TZ string means here.
    pub fn named(text: &str) -> Result<Self, String> {
        Self::named_in(text, Path::new(FOLDER))
    }

    /// What a text means without looking at files: a rule, or with none the name of a zone.
    pub fn rule(text: &str) -> Result<Option<Rule>, String> {
        if text == "UTC" || text == "GMT" {
            return Ok(Some(Rule::fixed(0)));
        }
        let rule = Rule::parse(text);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_+-/".contains(&b);
        let is_name = text.bytes().all(plain) && !text.is_empty() && !text.starts_with('/');
        if text.len() > ZONE_LIMIT || rule.is_none() && !is_name {
            return Err(format!(
                "expected a POSIX TZ string, such as CET-1CEST,M3.5.0,M10.5.0/3, or the name of a zone, up to \
                 {ZONE_LIMIT} bytes"
            ));
        }
        Ok(rule)
    }

    pub(super) fn named_in(text: &str, folder: &Path) -> Result<Self, String> {
        if let Some(rule) = Self::rule(text)? {
            return Ok(rule.into());
        }
        let path = folder.join(text);
        Self::of_file(&path).map_err(|e| {
            let hint = match e.kind() {
                io::ErrorKind::NotFound => {
                    "; give it as a POSIX TZ string, such as CET-1CEST,M3.5.0,M10.5.0/3, or install the zone files"
                }
                _ => "",
            };
            format!("the zone {text} is not known here ({}: {e}){hint}", path.display())
        })
    }

    /// The device's own zone, as its C library finds it; UTC where nothing names one. The error says why it is UTC.
    pub fn own() -> (Self, Option<String>) {
        let variable = std::env::var("TZ").ok().filter(|tz| !tz.is_empty());
        let found = match variable.or_else(|| first_line("/etc/TZ")) {
            Some(tz) => {
                let name = tz.strip_prefix(':').unwrap_or(&tz);
                if name.starts_with('/') {
                    Self::of_file(Path::new(name)).map_err(|e| format!("{name}: {e}"))
                } else {
                    Self::named(name)
                }
            }
            None => match Self::of_file(Path::new("/etc/localtime")) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Rule::fixed(0).into()),
                other => other.map_err(|e| format!("/etc/localtime: {e}")),
            },
        };
        match found {
            Ok(zone) => (zone, None),
            Err(why) => {
                let why = format!("the device's own time zone cannot be read, UTC counts: {why}");
                (Rule::fixed(0).into(), Some(why))
            }
        }
    }

    fn of_file(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_LIMIT).read_to_end(&mut bytes)?;
        tzif::read(&bytes).ok_or_else(|| io::Error::other("it is no zone file"))
    }

    /// The stretch that a time is in.
    pub fn segment(&self, time: i64) -> Segment {
        let behind = self.changes.partition_point(|(at, _)| *at <= time);
        let offset = |n: usize| match n.checked_sub(1) {
            Some(n) => self.changes[n].1,
            None => self.first,
        };
        let start = behind.checked_sub(1).map(|n| self.changes[n].0);
        let before = offset(behind.saturating_sub(1));
        if let Some((end, _)) = self.changes.get(behind) {
            return Segment {
                start,
                before,
                offset: offset(behind),
                end: Some(*end),
            };
        }
        let segment = self.rule.segment(time);
        // What the rule says of the time before the last change does not hold.
        match start {
            Some(start) if segment.start.is_none_or(|s| s <= start) => Segment {
                start: Some(start),
                before,
                ..segment
            },
            _ => segment,
        }
    }
}

impl From<Rule> for Zone {
    fn from(rule: Rule) -> Self {
        Self {
            first: 0,
            changes: Vec::new(),
            rule,
        }
    }
}

fn first_line(path: &str) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(1_024).read_to_string(&mut text).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

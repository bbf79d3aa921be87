//! The Common Event Format of `ArcSight`, read strictly and written with all its escapes (`docs/protocol.md` section 7).
//!
//! No I/O and no clock: the agent checks what comes in by it, Poseidon finds by it what it stores. A line takes one
//! pass, whatever is in it.
//!
//! Strict where a reader could take one thing for another. One thing vendors do leave out harms nobody: in a value a
//! backslash before any other character stands for itself, as in `DOMAIN\user` and in Fortinet's `\/`.

mod severity;
pub mod syslog;
#[cfg(test)]
mod tests;
mod write;

pub use severity::Severity;

use std::borrow::Cow;
use std::fmt;

/// What every line begins with.
pub const MARK: &str = "CEF:";
/// Fields of the header, the version among them.
const FIELDS: usize = 7;
/// Their names, for messages.
const NAMES: [&str; FIELDS] = [
    "version",
    "vendor",
    "product",
    "device version",
    "signature",
    "name",
    "severity",
];

/// An event. What had no escapes is borrowed from the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cef<'a> {
    /// Of the format: 0 or 1.
    pub version: u8,
    /// Who made the device.
    pub vendor: Cow<'a, str>,
    /// What device it is.
    pub product: Cow<'a, str>,
    /// Its version; may be empty.
    pub device_version: Cow<'a, str>,
    /// What kind of event it is, for programs.
    pub signature: Cow<'a, str>,
    /// The same for people.
    pub name: Cow<'a, str>,
    #[allow(missing_docs)]
    pub severity: Severity,
    /// Keys and values as they stand: `cs1` stays `cs1` whatever `cs1Label` calls it, and a key may come twice.
    pub extension: Vec<Pair<'a>>,
}

/// A key and its value.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

impl Cef<'_> {
    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut pairs = self.extension.iter();
        pairs.find(|(k, _)| k == key).map(|(_, v)| &**v)
    }
}

/// What is wrong with a line, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The byte, from 0, of what was given.
    pub at: usize,
    /// In words.
    pub what: Cow<'static, str>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.what)
    }
}

impl std::error::Error for Fault {}

fn fault<T>(at: usize, what: impl Into<Cow<'static, str>>) -> Result<T, Fault> {
    let what = what.into();
    Err(Fault { at, what })
}

/// Reads a line that begins with `CEF:`, without the end of the line.
pub fn parse(line: &str) -> Result<Cef<'_>, Fault> {
    if let Some(at) = line.bytes().position(|b| matches!(b, b'\n' | b'\r' | 0)) {
        return fault(at, "a line end or a NUL byte cannot stand in an event");
    }
    if !line.starts_with(MARK) {
        return fault(0, "an event begins with CEF:");
    }
    let (fields, rest) = header(line)?;
    let field = |n: usize| unescape(&line[fields[n].0..fields[n].1], header_escape);
    let version = match &line[fields[0].0..fields[0].1] {
        "0" => 0,
        "1" => 1,
        _ => return fault(fields[0].0, "the version is 0 or 1"),
    };
    // The device's version alone may be empty.
    for n in [1, 2, 4, 5] {
        if fields[n].0 == fields[n].1 {
            return fault(fields[n].0, format!("the {} is empty", NAMES[n]));
        }
    }
    let Some(severity) = Severity::parse(&line[fields[6].0..fields[6].1]) else {
        let what = "the severity is 0 to 10, Unknown, Low, Medium, High or Very-High";
        return fault(fields[6].0, what);
    };
    Ok(Cef {
        version,
        vendor: field(1),
        product: field(2),
        device_version: field(3),
        signature: field(4),
        name: field(5),
        severity,
        extension: extension(line, rest)?,
    })
}

/// Where each field begins and ends, and where the extension begins.
fn header(line: &str) -> Result<([(usize, usize); FIELDS], usize), Fault> {
    let bytes = line.as_bytes();
    let mut fields = [(0, 0); FIELDS];
    let (mut field, mut begin, mut at) = (0, MARK.len(), MARK.len());
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => {
                if bytes.get(at + 1).copied().and_then(header_escape).is_none() {
                    return fault(at, r"in the header a backslash is followed by | or \");
                }
                at += 1;
            }
            b'|' => {
                fields[field] = (begin, at);
                field += 1;
                begin = at + 1;
                if field == FIELDS {
                    return Ok((fields, begin));
                }
            }
            _ => {}
        }
        at += 1;
    }
    let what = format!(
        "the header ends within the field {} ({}): it has seven, each closed by a |",
        field + 1,
        NAMES[field]
    );
    fault(bytes.len(), what)
}

/// The pairs from `start` on. A value ends before the blank in front of the next key.
fn extension(line: &str, start: usize) -> Result<Vec<Pair<'_>>, Fault> {
    let bytes = line.as_bytes();
    let mut pairs = Vec::new();
    // The key whose value is being read, and where that begins.
    let mut open: Option<(&str, usize)> = None;
    // Where the word begins, and whether it may be a key so far.
    let (mut word, mut is_key) = (start, true);
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b' ' => (word, is_key) = (at + 1, true),
            b'\\' => {
                is_key = false;
                at += usize::from(bytes.get(at + 1).copied().and_then(value_escape).is_some());
            }
            b'=' if is_key && word < at => {
                match open {
                    Some((key, value)) => pairs.push(pair(key, &line[value..word - 1])),
                    None if line[start..word].trim_matches(' ').is_empty() => {}
                    None => return fault(start, NO_KEY),
                }
                open = Some((&line[word..at], at + 1));
                is_key = false;
            }
            b'=' if open.is_none() => return fault(at, NO_KEY),
            b'=' => return fault(at, r"a = within a value is written \="),
            byte => is_key &= is_key_byte(byte),
        }
        at += 1;
    }
    match open {
        Some((key, value)) => pairs.push(pair(key, &line[value..])),
        None if line[start..].trim_matches(' ').is_empty() => {}
        None => return fault(start, NO_KEY),
    }
    Ok(pairs)
}

const NO_KEY: &str =
    "the extension is key=value, with keys of letters, digits, '.', '_', '-', '[' and ']'";

fn pair<'a>(key: &'a str, value: &'a str) -> Pair<'a> {
    (key.into(), unescape(value, value_escape))
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-[]".contains(&byte)
}

/// What a backslash and this stand for in the header.
fn header_escape(byte: u8) -> Option<char> {
    matches!(byte, b'|' | b'\\').then_some(byte as char)
}

/// The same in the extension.
fn value_escape(byte: u8) -> Option<char> {
    match byte {
        b'=' | b'\\' => Some(byte as char),
        b'n' => Some('\n'),
        b'r' => Some('\r'),
        _ => None,
    }
}

fn unescape(text: &str, escape: fn(u8) -> Option<char>) -> Cow<'_, str> {
    let Some(first) = text.find('\\') else {
        return text.into();
    };
    let mut plain = String::with_capacity(text.len());
    let mut rest = &text[first..];
    plain.push_str(&text[..first]);
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let escaped = rest.as_bytes().get(at + 1).copied().and_then(escape);
        plain.push(escaped.unwrap_or('\\'));
        rest = &rest[at + 1 + usize::from(escaped.is_some())..];
    }
    plain.push_str(rest);
    plain.into()
}

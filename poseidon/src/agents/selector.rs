//! Selectors: which devices are meant, by what is known of them.
//!
//! A selector is terms with commas between them, which must all hold. A term is `KEY=PATTERN` or the PATTERN of a name,
//! and `!` before it negates it. Patterns know `*` and `?`; a backslash takes what follows as it is. Case matters.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::iter::Peekable;
use std::str::Chars;
use triton::message::payload::HEARTBEAT_SECONDS;

/// Longest selector, in characters.
const LENGTH_LIMIT: usize = 4096;
/// Most terms in one.
const MAX_TERMS: usize = 64;

/// What is known of an agent that a selector goes by.
pub struct Facts<'a> {
    /// Name of its identifier.
    pub name: &'a str,
    /// Its instance id.
    pub instance: &'a str,
    /// Whether it is connected.
    pub up: bool,
    /// Attributes of its identifier.
    pub attributes: &'a BTreeMap<String, String>,
    /// What it says of itself.
    pub hello: &'a Hello,
}

/// The part of `hello` that is looked at again and again, mostly by selectors; what a plain Triton never said is empty
/// and fits nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Hello {
    os: Option<String>,
    arch: Option<String>,
    hostname: Option<String>,
    agent: Agent,
    labels: BTreeMap<String, String>,
    #[serde(rename = "heartbeatSeconds")]
    heartbeat: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Agent {
    version: Option<String>,
}

impl Hello {
    /// Of a `hello` as it is stored.
    pub fn read(hello: Option<&RawValue>) -> Self {
        // It was checked when it came; what cannot be read now says nothing.
        hello
            .and_then(|hello| serde_json::from_str(hello.get()).ok())
            .unwrap_or_default()
    }

    /// The seconds between heartbeats that it asks for, where they are within bounds; a fraction is cut off.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what does not fit ends at a bound of u32, and is out of bounds"
    )]
    pub fn heartbeat(&self) -> Option<u32> {
        let seconds = self.heartbeat.map(|seconds| seconds as u32);
        seconds.filter(|seconds| HEARTBEAT_SECONDS.contains(seconds))
    }
}

/// A selector that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// A pattern with a slash is one of NAME/INSTANCE.
    Name(Pattern),
    Label(String, Pattern),
    Attribute(String, Pattern),
    Os(Pattern),
    Arch(Pattern),
    Hostname(Pattern),
    Version(Pattern),
    Up(bool),
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectorError {
    /// Which character, from 1 on.
    pub position: usize,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.position, self.reason)
    }
}

impl std::error::Error for SelectorError {}

impl std::str::FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.chars().count() > LENGTH_LIMIT {
            let reason = format!("a selector has at most {LENGTH_LIMIT} characters");
            return Err(fault(LENGTH_LIMIT + 1, reason));
        }
        let mut reader = Reader {
            rest: text.chars().peekable(),
            position: 1,
        };
        let mut terms = Vec::new();
        loop {
            if terms.len() == MAX_TERMS {
                let reason = format!("a selector has at most {MAX_TERMS} terms");
                return Err(fault(reader.position, reason));
            }
            terms.push(reader.term()?);
            if reader.next().is_none() {
                return Ok(Self(terms));
            }
        }
    }
}

impl Selector {
    /// Whether it means this agent.
    pub fn selects(&self, agent: &Facts<'_>) -> bool {
        self.0
            .iter()
            .all(|term| term.test.holds(agent) != term.negated)
    }
}

impl Selector {
    /// Whether it goes by the state, which comes and goes.
    pub fn is_passing(&self) -> bool {
        self.0.iter().any(|term| matches!(term.test, Test::Up(_)))
    }
}

impl Test {
    fn holds(&self, agent: &Facts<'_>) -> bool {
        let hello = agent.hello;
        let fits =
            |pattern: &Pattern, value: Option<&String>| value.is_some_and(|v| pattern.fits(v));
        match self {
            Self::Name(pattern) if pattern.has_slash() => {
                pattern.fits(&format!("{}/{}", agent.name, agent.instance))
            }
            Self::Name(pattern) => pattern.fits(agent.name),
            Self::Label(key, pattern) => fits(pattern, hello.labels.get(key)),
            Self::Attribute(key, pattern) => fits(pattern, agent.attributes.get(key)),
            Self::Os(pattern) => fits(pattern, hello.os.as_ref()),
            Self::Arch(pattern) => fits(pattern, hello.arch.as_ref()),
            Self::Hostname(pattern) => fits(pattern, hello.hostname.as_ref()),
            Self::Version(pattern) => fits(pattern, hello.agent.version.as_ref()),
            Self::Up(up) => agent.up == *up,
        }
    }
}

fn fault(position: usize, reason: impl Into<String>) -> SelectorError {
    SelectorError {
        position,
        reason: reason.into(),
    }
}

/// A character, and whether a backslash stood before it.
type Sign = (char, bool);

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    position: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        self.position += 1;
        Some(next)
    }

    /// Up to the next comma, which stays.
    fn term(&mut self) -> Result<Term, SelectorError> {
        self.blanks();
        let mut negated = false;
        while self.rest.next_if_eq(&'!').is_some() {
            self.position += 1;
            negated = !negated;
            self.blanks();
        }
        let start = self.position;
        let mut key = None;
        let mut signs: Vec<Sign> = Vec::new();
        let mut value_at = start;
        while let Some(c) = self.rest.next_if(|c| *c != ',') {
            self.position += 1;
            match c {
                '\\' => match self.next() {
                    Some(c) => signs.push((c, true)),
                    None => return Err(fault(self.position, "a backslash at the end")),
                },
                '=' if key.is_none() => {
                    key = Some(std::mem::take(&mut signs));
                    value_at = self.position;
                }
                c => signs.push((c, false)),
            }
        }
        while signs.last().is_some_and(|s| *s == (' ', false)) {
            signs.pop();
        }
        let Some(key) = key else {
            if signs.is_empty() {
                let reason = "a term is missing: KEY=PATTERN, or the pattern of a name";
                return Err(fault(start, reason));
            }
            let test = Test::Name(Pattern::new(&signs));
            return Ok(Term { negated, test });
        };
        let key: String = key.into_iter().map(|(c, _)| c).collect();
        let key = key.trim_end();
        let blanks = signs.iter().take_while(|s| **s == (' ', false)).count();
        signs.drain(..blanks);
        if signs.is_empty() {
            let reason = format!("a pattern is missing behind {key}=");
            return Err(fault(value_at, reason));
        }
        let test = test(key, &signs).map_err(|(at_value, reason)| {
            let position = if at_value { value_at + blanks } else { start };
            fault(position, reason)
        })?;
        Ok(Term { negated, test })
    }

    fn blanks(&mut self) {
        while self.rest.next_if_eq(&' ').is_some() {
            self.position += 1;
        }
    }
}

/// The error says whether it is about the value.
fn test(key: &str, signs: &[Sign]) -> Result<Test, (bool, String)> {
    let pattern = Pattern::new(signs);
    Ok(match key {
        "name" => Test::Name(pattern),
        "os" => Test::Os(pattern),
        "arch" => Test::Arch(pattern),
        "hostname" => Test::Hostname(pattern),
        "version" => Test::Version(pattern),
        "state" => {
            let value: String = signs.iter().map(|(c, _)| c).collect();
            match value.as_str() {
                "up" => Test::Up(true),
                "down" => Test::Up(false),
                _ => return Err((true, format!("a state is up or down, not {value}"))),
            }
        }
        _ => match key.split_once('.') {
            Some(("label", key)) if !key.is_empty() => Test::Label(key.to_owned(), pattern),
            Some(("attribute", key)) if !key.is_empty() => Test::Attribute(key.to_owned(), pattern),
            _ => {
                let reason = format!(
                    "there is no key {key:?}; there are name, label.KEY, attribute.KEY, os, arch, hostname, version, state"
                );
                return Err((false, reason));
            }
        },
    })
}

/// Text with `*` (anything) and `?` (any one character).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Any,
    One,
    Char(char),
}

impl Pattern {
    fn new(signs: &[Sign]) -> Self {
        let piece = |sign: &Sign| match sign {
            ('*', false) => Piece::Any,
            ('?', false) => Piece::One,
            (c, _) => Piece::Char(*c),
        };
        Self(signs.iter().map(piece).collect())
    }

    fn has_slash(&self) -> bool {
        self.0.contains(&Piece::Char('/'))
    }

    /// Goes back to the last `*` only, so the time is bounded by the product of both lengths.
    fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut piece) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while at < text.len() {
            match self.0.get(piece) {
                Some(Piece::Any) => {
                    star = Some((piece, at));
                    piece += 1;
                }
                Some(Piece::One) => (at, piece) = (at + 1, piece + 1),
                Some(Piece::Char(c)) if *c == text[at] => (at, piece) = (at + 1, piece + 1),
                _ => {
                    let Some((any, taken)) = star else {
                        return false;
                    };
                    star = Some((any, taken + 1));
                    (at, piece) = (taken + 1, any + 1);
                }
            }
        }
        self.0[piece..].iter().all(|piece| *piece == Piece::Any)
    }
}

#[cfg(test)]
#[path = "selector_tests.rs"]
mod tests;

//! Events: lines of the Common Event Format on their way into the journal, from which Poseidon gets them
//! (`docs/protocol.md` section 7).
//!
//! Whoever has events (a local client, a plugin, the listener, a followed file, Poseidon) hands them to [`Events::store`]
//! with the name of the source. What is stored is the line as it came, without its syslog prefix: nothing is mended.

mod follow;
#[cfg(test)]
mod follow_tests;
mod gate;
pub mod intake;
mod listen;
mod positions;
#[cfg(test)]
mod tests;

use crate::cef::{self, syslog};
use crate::dates;
use crate::journal::Journal;
use crate::message::Message;
use crate::message::payload::{self, Error, ErrorCode};
use crate::schedule::Zone;
use crate::sys::clock;
use crate::thread::{Crew, SMALL_STACK};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most events of one message.
pub const BATCH: usize = 1_000;
/// Longest name of a host, in bytes.
const HOST_LIMIT: usize = 255;
/// How long the device's offset from UTC counts before it is looked up again.
const ZONE_AGE: Duration = Duration::from_mins(1);

/// An event that wants in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// When it happened; else what its prefix says, else now.
    pub time: Option<f64>,
    /// Where; else what its prefix says, else this device.
    pub host: Option<String>,
    /// The line, perhaps behind a syslog prefix.
    pub line: String,
}

/// An event that was checked: its time, and its data in JSON.
type Ready = (f64, String);

/// Takes events.
pub struct Events {
    journal: Arc<Journal>,
    crew: Crew,
    line_bytes: usize,
    /// The device's offset from UTC, and since when.
    offset: Mutex<Option<(Instant, i64)>>,
    /// A thread waits to sync what came while there is no connection.
    syncing: Arc<AtomicBool>,
    tally: Mutex<Tally>,
}

/// What became of what came, since the agent's start, for `agent.status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Of all sources.
    pub stored: u64,
    /// Of the listener and followed files: lines that are wrong...
    pub refused: u64,
    /// ...why the last of them was...
    pub reason: Option<String>,
    /// ...datagrams without an event...
    pub not_cef: u64,
    /// ...datagrams above `events.rate`...
    pub limited: u64,
    /// ...and lines of files without an event, which are nobody's fault.
    pub passed: u64,
    /// Where events are taken: each place with what is wrong with it, if anything.
    pub sources: Vec<(String, Option<String>)>,
}

impl Events {
    /// Stores in `journal` lines of up to `line_bytes`.
    pub fn new(journal: Arc<Journal>, crew: Crew, line_bytes: usize) -> Self {
        Self {
            journal,
            crew,
            line_bytes,
            offset: Mutex::default(),
            syncing: Arc::default(),
            tally: Mutex::default(),
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, count: u64, reason: String) {
        let mut tally = self.tally();
        tally.refused += count;
        tally.reason = Some(reason);
    }

    /// How many came, for `agent.status`.
    pub fn report(&self) -> Tally {
        self.tally().clone()
    }

    /// Stores events of a source (`command`, `plugin/NAME`, `poseidon`, …), all or none. Returns the sequence of the last.
    pub fn store(&self, source: &str, events: &[Event]) -> Result<u64, Error> {
        let ready = |(n, event)| {
            self.check(source, event, None)
                .map_err(|e| match events.len() {
                    1 => e,
                    _ => Error::new(e.code, format!("event {}: {}", n + 1, e.message)),
                })
        };
        let ready = events.iter().enumerate().map(ready);
        self.put(ready.collect::<Result<_, _>>()?)
    }

    /// Stores what was checked.
    fn put(&self, ready: Vec<Ready>) -> Result<u64, Error> {
        let count = ready.len() as u64;
        let last = self.journal.events(ready)?;
        self.tally().stored += count;
        if !self.journal.is_connected() {
            self.sync_in_time();
        }
        Ok(last)
    }

    /// Stores what the listener or a file gave, one by one where that is too much at once; an error where there is no room
    /// now. Returns the sequence of the last, or 0 where none was stored: what will never have room is refused.
    fn put_all(&self, ready: Vec<Ready>) -> Result<u64, Error> {
        if ready.is_empty() {
            return Ok(0);
        }
        let again = ready.clone();
        match self.put(ready) {
            Err(error) if error.code == ErrorCode::TooLarge => {}
            stored => return stored,
        }
        let mut last = 0;
        for one in again {
            match self.put(vec![one]) {
                Ok(sequence) => last = sequence,
                Err(error) if last == 0 && error.code != ErrorCode::TooLarge => return Err(error),
                Err(error) => self.refuse(1, error.message),
            }
        }
        Ok(last)
    }

    /// What is stored of an event. `away` is its host where nothing says another and it is not this device.
    fn check(&self, source: &str, event: &Event, away: Option<&str>) -> Result<Ready, Error> {
        let invalid = |message: String| Error::new(ErrorCode::Invalid, message);
        if event.line.len() > self.line_bytes {
            let message = format!(
                "the event has {} bytes; at most {} are taken (events.line_bytes)",
                event.line.len(),
                self.line_bytes
            );
            return Err(Error::new(ErrorCode::TooLarge, message));
        }
        if event.time.is_some_and(|time| !dates::is_common(time)) {
            return Err(invalid(
                "time must be a Unix time of the years 1970 to 9999".to_owned(),
            ));
        }
        let is_host = |host: &String| {
            (1..=HOST_LIMIT).contains(&host.len()) && !host.chars().any(char::is_control)
        };
        if event.host.as_ref().is_some_and(|host| !is_host(host)) {
            return Err(invalid(format!(
                "host has 1 to {HOST_LIMIT} bytes, none of them a control character"
            )));
        }
        let now = clock::trusted();
        let fault = |fault: cef::Fault| invalid(format!("no CEF event: {fault}"));
        let (prefix, line) = syslog::split(&event.line, now, self.offset(now)).map_err(fault)?;
        cef::parse(line).map_err(|mut wrong| {
            // As the sender counts.
            wrong.at += event.line.len() - line.len();
            fault(wrong)
        })?;
        let said = event.host.as_deref().or(prefix.host).or(away);
        let host = said.map(str::to_owned).or_else(sysinfo::System::host_name);
        let said = prefix.time.filter(|time| dates::is_common(*time));
        let time = event.time.or(said).unwrap_or(now);
        let data = json!({ "host": host, "source": source, "cef": line });
        Ok((time, data.to_string()))
    }

    /// Seconds that this device's time is ahead of UTC.
    fn offset(&self, now: f64) -> i64 {
        let mut offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        match *offset {
            Some((at, seconds)) if at.elapsed() < ZONE_AGE => seconds,
            _ => {
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "years do not reach that far"
                )]
                let seconds = Zone::own().0.segment(now as i64).offset;
                *offset = Some((Instant::now(), seconds));
                seconds
            }
        }
    }

    /// Sees that what came while there is no connection is synced when that is due. A thread that sleeps till then, and only
    /// then: no other is awake while the device is offline.
    fn sync_in_time(&self) {
        let Some(due) = self.journal.sync_due() else {
            return;
        };
        if self.syncing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (journal, syncing) = (Arc::clone(&self.journal), Arc::clone(&self.syncing));
        let thread = self.crew.spawn("events-sync", SMALL_STACK, move || {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Before the sync: what comes from now on has its own.
            syncing.store(false, Ordering::Release);
            journal.sync();
        });
        if thread.is_err() {
            self.syncing.store(false, Ordering::Release);
            self.journal.sync();
        }
    }

    /// The answer to an `event` message, whoever sent it.
    pub fn answer(&self, message: &Message, source: &str) -> Message {
        let unreadable = |e: payload::PayloadError| Error::new(ErrorCode::Invalid, e.to_string());
        let stored = message
            .read::<Value>()
            .map_err(unreadable)
            .and_then(|asked| read(&asked))
            .and_then(|events| self.store(source, &events));
        match stored {
            Ok(sequence) => {
                let result = json!({ "status": "succeeded", "sequence": sequence });
                message.reply(payload::RESULT, &result)
            }
            Err(error) => message.reply(payload::ERROR, &error),
        }
    }
}

/// The payload of an `event`: one, or a list of them.
fn read(asked: &Value) -> Result<Vec<Event>, Error> {
    let invalid = |message: &str| Err(Error::new(ErrorCode::Invalid, message));
    let list = match asked.get("events") {
        None => return Ok(vec![read_one(asked)?]),
        Some(_) if asked.get("cef").is_some() => {
            return invalid("either cef, or events, not both");
        }
        Some(Value::Array(list)) => &list[..],
        // In XML a list of one looks like no list.
        Some(one @ Value::Object(_)) => std::slice::from_ref(one),
        Some(_) => return invalid("events is no list"),
    };
    if list.is_empty() {
        return invalid("events is empty");
    }
    if list.len() > BATCH {
        let message = format!("{} events; at most {BATCH} come at once", list.len());
        return Err(Error::new(ErrorCode::TooLarge, message));
    }
    let numbered = list.iter().enumerate();
    numbered
        .map(|(n, one)| {
            read_one(one).map_err(|e| Error::new(e.code, format!("event {}: {}", n + 1, e.message)))
        })
        .collect()
}

fn read_one(asked: &Value) -> Result<Event, Error> {
    let invalid = |message: &str| Error::new(ErrorCode::Invalid, message);
    let given = |name| asked.get(name).filter(|value: &&Value| !value.is_null());
    let Some(line) = given("cef").and_then(Value::as_str) else {
        return Err(invalid("cef is missing, or is no text"));
    };
    let time = match given("time") {
        None => None,
        Some(time) => {
            // In XML a number is a text.
            let text = || time.as_str()?.trim().parse().ok();
            let time = time.as_f64().or_else(text);
            Some(time.ok_or_else(|| invalid("time must be a Unix time"))?)
        }
    };
    let host = match given("host") {
        None => None,
        Some(host) => Some(host.as_str().ok_or_else(|| invalid("host is no text"))?),
    };
    Ok(Event {
        time,
        host: host.map(str::to_owned),
        line: line.to_owned(),
    })
}

//! `triton history`: what the journal of this device holds.

use super::{printable, unexpected};
use crate::config::Config;
use crate::dates;
use crate::error::{Error, Result};
use crate::local::client::Client;
use crate::message::Message;
use crate::message::payload::{self, HISTORY, HISTORY_GET, History, HistoryGet, Record, code};
use crate::sys::poll::{GONE, PollSet, after};
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// How long the daemon may take for a page; a full flash is slow.
const PATIENCE: Duration = Duration::from_secs(10);
/// The daemon is asked so often with `--follow`.
const PACE: Duration = Duration::from_secs(1);
/// Records shown without any filter or limit.
const NEWEST: usize = 20;
/// Most records of one answer, by the protocol, and of `--limit`.
pub const MOST: usize = 1_000;
/// Characters of a value in the text output; `--json` has all.
const SHOWN: usize = 120;

/// What `triton history` is to show.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Query {
    pub token: Option<String>,
    pub code: Option<u32>,
    /// Unix time, of `etime`.
    pub since: Option<f64>,
    /// Unix time.
    pub ctime: Option<f64>,
    pub id: Option<u64>,
    pub limit: Option<usize>,
    pub follow: bool,
}

/// How it goes on.
#[derive(Debug, PartialEq, Eq)]
enum Output {
    Open,
    /// Nobody reads it any more.
    Gone,
}

pub fn run(config: &Config, query: &Query, json: bool) -> Result<u8> {
    let mut reader = Reader {
        config,
        query,
        client: Some(connect(config)?),
    };
    let (output, seen) = first(&mut reader, query, json)?;
    if query.follow && output == Output::Open {
        follow(&mut reader, seen, json)?;
    }
    Ok(0)
}

fn connect(config: &Config) -> Result<Client> {
    Client::connect(&config.socket, config.limits.message_bytes)
}

/// What is there already. Returns the sequence up to which all is shown.
fn first(reader: &mut Reader, query: &Query, json: bool) -> Result<(Output, u64)> {
    let filtered = query.token.is_some()
        || query.code.is_some()
        || query.since.is_some()
        || query.ctime.is_some();
    let mut print = |records: &[Record]| show(records, json);
    match (query.id, query.limit) {
        (Some(id), limit) => reader.pages(id, limit.unwrap_or(usize::MAX), &mut print),
        (None, None) if filtered => reader.pages(0, usize::MAX, &mut print),
        (None, limit) => {
            let (newest, seen) = reader.newest(limit.unwrap_or(NEWEST), filtered)?;
            Ok((show(&newest, json)?, seen))
        }
    }
}

/// Shows what comes, until nobody reads it or Ctrl-C ends this process.
fn follow(reader: &mut Reader, mut seen: u64, json: bool) -> Result<()> {
    let mut away = false;
    let mut pause = PACE;
    while !nobody_reads(pause)? {
        pause = PACE;
        if reader.client.is_none() {
            reader.client = connect(reader.config).ok();
        }
        let page = match reader.client {
            Some(_) => reader.page(seen, MOST),
            None => Err(Failure::Away(String::new())),
        };
        match page {
            Ok(page) => {
                if std::mem::take(&mut away) {
                    eprintln!("triton: the daemon is back");
                }
                if page.last < seen {
                    eprintln!("triton: the journal has begun anew");
                    seen = 0;
                    continue;
                }
                if show(&page.records, json)? == Output::Gone {
                    return Ok(());
                }
                if page.more {
                    pause = Duration::ZERO;
                }
                // What does not fit the filter need not be looked at again.
                seen = match page.records.last() {
                    _ if !page.more => page.last,
                    Some(record) => record.id,
                    None => return Err(too_large(seen)),
                };
            }
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Away(reason)) => {
                reader.client = None;
                if !std::mem::replace(&mut away, true) {
                    eprintln!("triton: {reason}; waiting for it");
                }
            }
        }
    }
    Ok(())
}

/// Waits, and tells whether the reader of standard output has gone meanwhile.
fn nobody_reads(time: Duration) -> Result<bool> {
    let out = io::stdout();
    let mut set = PollSet::new();
    let place = set.add(out.as_fd(), 0);
    set.wait(Some(after(time)))
        .map_err(|e| Error::because("cannot wait for the next record", e))?;
    Ok(set.ready(place) & GONE != 0)
}

/// Why there is no page.
enum Failure {
    /// The daemon does not answer; it may come back.
    Away(String),
    /// It answers something that does not change by asking again.
    Refused(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away(reason) => Self::new(reason),
            Failure::Refused(error) => error,
        }
    }
}

/// Asks the daemon page by page.
struct Reader<'a> {
    config: &'a Config,
    query: &'a Query,
    client: Option<Client>,
}

impl Reader<'_> {
    /// One page behind `id`.
    fn page(&mut self, id: u64, limit: usize) -> Result<History, Failure> {
        let question = HistoryGet {
            token: self.query.token.clone(),
            code: self.query.code,
            etime: self.query.since,
            ctime: self.query.ctime,
            id: Some(id),
            limit: Some(limit.min(MOST)),
        };
        let Some(client) = &mut self.client else {
            return Err(Failure::Away("there is no connection".to_owned()));
        };
        let answer = client
            .ask(&Message::with(HISTORY_GET, &question), after(PATIENCE))
            .map_err(|e| Failure::Away(e.to_string()))?;
        match answer.kind.as_str() {
            HISTORY => answer.read_json().map_err(|e| {
                Failure::Refused(Error::because("a history of the daemon cannot be read", e))
            }),
            payload::ERROR => Err(Failure::Refused(refusal(&answer))),
            other => Err(Failure::Refused(unexpected(other))),
        }
    }

    /// Every page behind `id` up to what is the end now, `most` records at most. Returns the sequence up to which all
    /// that fits has been seen.
    fn pages(
        &mut self,
        mut id: u64,
        mut most: usize,
        take: &mut dyn FnMut(&[Record]) -> Result<Output>,
    ) -> Result<(Output, u64)> {
        let mut end = None;
        loop {
            let page = self.page(id, most)?;
            // Whoever writes all the time does not make this endless.
            let end = *end.get_or_insert(page.last);
            let output = take(&page.records)?;
            if !page.more {
                return Ok((output, page.last));
            }
            let last = page.records.last().map_or(id, |record| record.id);
            // An answer that does not go on would come again for ever.
            if last <= id {
                return Err(too_large(id));
            }
            most = most.saturating_sub(page.records.len());
            if last >= end || most == 0 || output == Output::Gone {
                return Ok((output, last));
            }
            id = last;
        }
    }

    /// The newest records, oldest first, and the end of the journal. The protocol counts from the oldest, so this begins
    /// near the end, and further back where gaps or filters leave too few.
    fn newest(&mut self, count: usize, filtered: bool) -> Result<(VecDeque<Record>, u64)> {
        let end = self.page(u64::MAX >> 1, 1)?.last;
        // A filter may leave one in thousands.
        let mut span = count as u64 * if filtered { 50 } else { 1 };
        loop {
            let from = end.saturating_sub(span);
            let mut newest = VecDeque::with_capacity(count.min(MOST));
            let (_, seen) = self.pages(from, usize::MAX, &mut |records| {
                for record in records {
                    if newest.len() == count {
                        newest.pop_front();
                    }
                    newest.push_back(record.clone());
                }
                Ok(Output::Open)
            })?;
            if newest.len() == count || from == 0 {
                return Ok((newest, seen));
            }
            // At most thirty-two times to the beginning of any journal.
            span = span.saturating_mul(4);
        }
    }
}

fn too_large(id: u64) -> Error {
    Error::new(format!(
        "the record behind {id} does not fit a message (limits.message_bytes); go on behind it with --id"
    ))
}

/// An `error` of the daemon as an error of this command.
pub fn refusal(answer: &Message) -> Error {
    match answer.read::<payload::Error>() {
        Ok(error) => Error::new(format!("{}: {}", error.code, printable(&error.message))),
        Err(e) => Error::because("an error of the daemon cannot be read", e),
    }
}

/// The number that the daemon has given to what it stored.
pub fn stored(answer: &Message) -> Result<u64> {
    let stored: Value = answer
        .read()
        .map_err(|e| Error::because("the daemon's answer", e))?;
    stored["sequence"]
        .as_u64()
        .ok_or_else(|| unexpected("result without sequence"))
}

fn show<'a>(records: impl IntoIterator<Item = &'a Record>, json: bool) -> Result<Output> {
    let mut text = String::new();
    for record in records {
        text.push_str(&if json { as_json(record) } else { line(record) });
        text.push('\n');
    }
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Output::Open),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Output::Gone),
        Err(e) => Err(Error::because("cannot write the history", e)),
    }
}

/// A record on one line, whatever its data looked like when it was stored.
fn as_json(record: &Record) -> String {
    let text = serde_json::to_string(record).unwrap_or_default();
    if text.contains(['\n', '\r']) {
        let value: Value = payload::from_json(&text).unwrap_or_default();
        return value.to_string();
    }
    text
}

/// What an event says, and where it is from.
fn event(data: &Value) -> String {
    match data["cef"].as_str() {
        Some(line) => format!("{} {} {line}", plain(&data["host"]), plain(&data["source"])),
        None => data.to_string(),
    }
}

/// A record as a line for people.
fn line(record: &Record) -> String {
    let data: Value = payload::from_json(record.data.get()).unwrap_or_default();
    let (word, summary) = match record.code {
        code::ACCEPTED => ("accepted".to_owned(), acceptance(&data)),
        code::SUCCEEDED => ("ok".to_owned(), end(&data)),
        code::FAILED => ("failed".to_owned(), end(&data)),
        code::EVENT => ("event".to_owned(), event(&data)),
        code::DROPPED => (
            "dropped".to_owned(),
            format!("{} events, for want of room", plain(&data["events"])),
        ),
        code::SKIPPED => (
            "skipped".to_owned(),
            format!(
                "{} {} times: {}",
                plain(&data["name"]),
                plain(&data["count"]),
                plain(&data["reason"])
            ),
        ),
        other => (format!("value {other}"), data.to_string()),
    };
    let line = format!(
        "{:>6}  {}  {word:<9}  {}  {}",
        record.id,
        dates::utc(record.etime),
        cut(&record.token),
        cut(&summary)
    );
    printable(line.trim_end())
}

fn acceptance(data: &Value) -> String {
    match data["origin"].as_str() {
        Some(origin) => format!("{} (from {origin})", plain(&data["what"])),
        None => plain(&data["what"]),
    }
}

/// A `result` or an `error` in a few words.
fn end(data: &Value) -> String {
    let mut words = Vec::new();
    match data["status"].as_str() {
        // The word before says it.
        Some("succeeded") => {}
        Some(status) if status == "failed" && !data["exitCode"].is_null() => {}
        Some(status) => words.push(status.to_owned()),
        None if !data["code"].is_null() => words.push(plain(&data["code"])),
        None => return data.to_string(),
    }
    for (field, name) in [("exitCode", "exit code"), ("signal", "signal")] {
        if !data[field].is_null() {
            words.push(format!("{name} {}", plain(&data[field])));
        }
    }
    if let Some(ms) = data["elapsedMs"].as_f64() {
        words.push(format!("{:.1} s", ms / 1e3));
    }
    if let Some(message) = data["message"].as_str() {
        words.push(message.to_owned());
    }
    words.join(", ")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use serde_json::value::RawValue;

    fn record(code: u32, data: &str) -> Record {
        Record {
            id: 7,
            token: "t".to_owned(),
            code,
            etime: 1_795_255_200.0,
            ctime: 1_795_255_200.0,
            conversation: None,
            data: RawValue::from_string(data.to_owned()).unwrap(),
        }
    }

    #[test]
    fn a_line_says_what_happened() {
        for (code, data, said) in [
            (
                0,
                json!({"what": "ls", "origin": "local"}),
                "accepted   t  ls (from local)",
            ),
            (
                1,
                json!({"status": "succeeded", "exitCode": 0, "elapsedMs": 1234}),
                "ok         t  exit code 0, 1.2 s",
            ),
            (
                2,
                json!({"status": "failed", "exitCode": 7, "elapsedMs": 0}),
                "failed     t  exit code 7, 0.0 s",
            ),
            (
                2,
                json!({"status": "failed", "signal": 9, "elapsedMs": 0}),
                "failed     t  failed, signal 9, 0.0 s",
            ),
            (
                2,
                json!({"status": "interrupted", "elapsedMs": 0, "message": "the device went down"}),
                "failed     t  interrupted, 0.0 s, the device went down",
            ),
            (
                2,
                json!({"code": "not-found", "message": "no such program"}),
                "failed     t  not-found, no such program",
            ),
            (101, json!({"a": 1}), "event      t  {\"a\":1}"),
            (
                101,
                json!({"host": "h", "source": "command", "cef": "CEF:0|a"}),
                "event      t  h command CEF:0|a",
            ),
            (
                102,
                json!({"events": 17}),
                "dropped    t  17 events, for want of room",
            ),
            (200, json!("hi"), "value 200  t  \"hi\""),
            (2, json!(null), "failed     t  null"),
        ] {
            let line = line(&record(code, &data.to_string()));
            assert_eq!(line, format!("     7  2026-11-21T10:00:00Z  {said}"));
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        let long = format!("\"{}\\n\\u001b[2J\u{9b}\"", "é".repeat(1_000));
        for data in [&long, "\"\\u001b[2J\\n\u{9b}x\"", "\"\u{7f}\""] {
            for code in [0, 1, 2, 101, 102, 200] {
                let line = line(&Record {
                    token: "a\u{1b}b\nc".to_owned(),
                    ..record(code, data)
                });
                assert!(!line.contains(char::is_control), "{line:?}");
                assert!(line.chars().count() < 300, "{line}");
            }
        }
        let spread = record(200, "{\n\"a\":\r\n [1, 2]\n}");
        let json = as_json(&spread);
        assert!(!json.contains(['\n', '\r']), "{json}");
        let read: Record = serde_json::from_str(&json).unwrap();
        assert_eq!(read.data.get(), "{\"a\":[1,2]}");
        // Numbers that a float cannot hold stay what they are.
        assert!(as_json(&record(200, "123456789012345678901234567890")).contains("4567890}"));
    }
}

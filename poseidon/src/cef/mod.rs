//! Events of devices, each a line in `ArcSight`'s Common Event Format: how they are read, searched and handed on to a SIEM.
//!
//! A line that is none is kept as text, with its severity unknown: a hostile agent cannot stop the records behind it, and what
//! a newer one means is not lost.

mod connect;
pub mod forward;
mod position;
pub mod search;
pub mod syslog;

use crate::server::{App, stopped};
use crate::store::events::{Event, Header};
use crate::store::records::Record;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use triton::dates::is_common;

/// Most of a line that is kept. An agent takes none of more than 16 KiB.
pub const LINE_BYTES: usize = 64 << 10;
/// Most of what says where an event comes from.
const PLACE_BYTES: usize = 256;
/// Events in one message.
const MAX_EVENTS: usize = 1000;
/// How often what is too much is deleted, and how many events in one call to the store.
const PRUNE_EVERY: Duration = Duration::from_secs(10);
const PRUNE: u32 = 1000;

/// What a server knows of events.
pub struct Cef {
    newest: watch::Sender<u64>,
    /// How the forwarding stands.
    pub forwarding: forward::Status,
}

impl Cef {
    /// Starts with the newest row that is stored.
    pub fn new(newest: u64) -> Self {
        Self {
            newest: watch::Sender::new(newest),
            forwarding: forward::Status::default(),
        }
    }

    /// An event is stored in this row.
    pub fn stored(&self, row: u64) {
        self.newest.send_if_modified(|newest| {
            let grows = row > *newest;
            *newest = row.max(*newest);
            grows
        });
    }

    /// The newest row, and those to come.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

/// A message `events`.
#[derive(Deserialize)]
pub struct Events {
    events: Vec<Value>,
}

impl Events {
    /// The records that it holds. What cannot be read of one is no reason to refuse it, but that it has no sequence: it
    /// could not be acknowledged, and an acknowledgement of a later one would cover it.
    pub fn into_records(self, now: f64, last_sequence: u64) -> Result<Vec<Record>, String> {
        if self.events.len() > MAX_EVENTS {
            return Err(format!("more than {MAX_EVENTS} events"));
        }
        let record = |mut event: Value| {
            let id = event["sequence"].as_u64();
            let id = id
                .filter(|id| *id <= last_sequence)
                .ok_or_else(|| format!("{} is no sequence", event["sequence"]))?;
            let time = |field| event[field].as_f64().filter(|time| is_common(*time));
            let (time, stored) = (time("time"), time("stored"));
            let stored = stored.or(time).unwrap_or(now);
            let data = json!({"host": event["host"].take(), "source": event["source"].take(), "cef": event["cef"].take()});
            Ok(Record {
                id,
                token: String::new(),
                code: triton::message::payload::code::EVENT,
                etime: time.unwrap_or(stored),
                ctime: stored,
                conversation: None,
                data: serde_json::value::to_raw_value(&data)
                    .unwrap_or_else(|_| RawValue::NULL.to_owned()),
            })
        };
        self.events.into_iter().map(record).collect()
    }
}

/// The event of a record with the code 101.
pub fn event(record: &Record, agent: &str) -> Event {
    let mut data: Map<String, Value> =
        serde_json::from_str(record.data.get()).unwrap_or_else(|_| Map::new());
    let mut text = |field: &str| match data.remove(field) {
        Some(Value::String(text)) => Some(text),
        None | Some(Value::Null) => None,
        Some(other) => Some(other.to_string()),
    };
    let line = text("cef").unwrap_or_else(|| record.data.get().to_owned());
    let host = cut(text("host").unwrap_or_default(), PLACE_BYTES);
    let source = cut(text("source").unwrap_or_default(), PLACE_BYTES);
    let (header, severity) = if line.len() <= LINE_BYTES {
        read(&line).map_or((None, None), |(header, severity)| (Some(header), severity))
    } else {
        (None, None)
    };
    Event {
        id: record.id,
        time: finite(record.etime),
        stored: finite(record.ctime),
        agent: agent.to_owned(),
        host,
        source,
        header,
        severity,
        line: cut(line, LINE_BYTES),
    }
}

/// Header and severity of a line that is CEF.
fn read(line: &str) -> Option<(Header, Option<u8>)> {
    let cef = triton::cef::parse(line).ok()?;
    let header = Header {
        format: cef.version,
        vendor: cef.vendor.into_owned(),
        product: cef.product.into_owned(),
        version: cef.device_version.into_owned(),
        signature: cef.signature.into_owned(),
        name: cef.name.into_owned(),
    };
    Some((header, cef.severity.number()))
}

/// Says how much is missing.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let whole = text.len();
        text.truncate(text.floor_char_boundary(most));
        let _ = write!(text, " … (cut off, {whole} bytes)");
    }
    text
}

/// `SQLite` makes NULL of what is no number.
fn finite(time: f64) -> f64 {
    if time.is_finite() { time } else { 0.0 }
}

/// Keeps as much as fits, until the server stops.
pub async fn prune(app: Arc<App>) {
    let mut stop = app.stop.clone();
    loop {
        tokio::select! {
            () = sleep(PRUNE_EVERY) => {}
            () = stopped(&mut stop) => return,
        }
        match prune_now(&app).await {
            Ok((0, _)) => {}
            Ok((deleted, 0)) => log::info!("deleted the {deleted} oldest events to make room"),
            Ok((deleted, unsent)) => log::warn!(
                "deleted the {deleted} oldest events to make room, and {unsent} of them the SIEM has never got: \
                 raise --events-bytes, or see what is wrong by `poseidon events --forwarding`"
            ),
            Err(e) => log::error!("old events are not deleted: {e}"),
        }
    }
}

/// Deletes what is too much, a piece at a time; how many events, and how many of these the SIEM did not have.
pub async fn prune_now(app: &App) -> crate::store::Result<(u64, u64)> {
    let keep = app.settings.events_bytes;
    let owed = app.settings.siem.is_some();
    let (mut deleted, mut unsent) = (0, 0);
    loop {
        let (d, u) = app
            .db
            .call(move |store| store.prune_events(keep, PRUNE, owed))
            .await?;
        deleted += d;
        unsent += u;
        if d == 0 || *app.stop.borrow() {
            return Ok((deleted, unsent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(data: &str) -> Record {
        Record {
            id: 7,
            token: String::new(),
            code: 101,
            etime: 1.5,
            ctime: 2.5,
            conversation: None,
            data: RawValue::from_string(data.to_owned()).unwrap(),
        }
    }

    #[test]
    fn whatever_comes_is_an_event() {
        let line = r"CEF:0|Acme|Fire\|wall|1.0|100|Login failed|8|src=10.0.0.1 msg=a\=b";
        let data = json!({"host": "gate", "source": "command", "cef": line}).to_string();
        let good = event(&record(&data), "box");
        let header = good.header.unwrap();
        assert_eq!(
            (
                header.vendor.as_str(),
                header.product.as_str(),
                header.format
            ),
            ("Acme", "Fire|wall", 0)
        );
        assert_eq!((good.severity, good.line.as_str()), (Some(8), line));
        for (line, severity) in [
            ("CEF:0|a|b|c|d|e|Very-High|", Some(10)),
            ("CEF:1|a|b|c|d|e|0|", Some(0)),
            ("CEF:0|a|b|c|d|e|Unknown|", None),
        ] {
            let data = json!({"cef": line}).to_string();
            let read = event(&record(&data), "box");
            assert_eq!(
                (read.severity, read.header.is_some()),
                (severity, true),
                "{line}"
            );
        }
        let mut lines: Vec<String> = [
            "",
            "CEF:",
            "CEF:0|a|b",
            "CEF:9|a|b|c|d|e|3|",
            "CEF:0|a|b|c|d|e|11|",
            "\u{0}\n",
        ]
        .map(str::to_owned)
        .to_vec();
        lines.push("CEF:0|".repeat(100_000));
        for line in lines {
            let data = json!({"cef": line}).to_string();
            let kept = event(&record(&data), "box");
            assert_eq!((&kept.header, kept.severity), (&None, None), "{line:.80}");
            assert!(kept.line.len() < LINE_BYTES + 100);
            assert!(line.starts_with(&kept.line) || kept.line.ends_with("(cut off, 600000 bytes)"));
        }
        for data in ["null", "[1]", "{}", r#"{"cef":{"a":1},"host":5}"#] {
            let kept = event(&record(data), "box");
            assert!(!kept.line.is_empty(), "{data}");
        }
    }

    #[test]
    fn only_a_sequence_is_needed() {
        let records = |events: Value| {
            serde_json::from_value::<Events>(json!({ "events": events }))
                .unwrap()
                .into_records(99.0, 1000)
        };
        let read = records(
            json!([{"sequence": 5}, {"sequence": 6, "time": "x", "stored": 4.0, "cef": []},
                {"sequence": 7, "time": 1e300, "stored": -1.0}, {"sequence": 8, "time": -0.5, "stored": 4.0}]),
        )
        .unwrap();
        assert_eq!((read[0].id, read[0].etime, read[0].ctime), (5, 99.0, 99.0));
        assert_eq!((read[1].id, read[1].etime, read[1].ctime), (6, 4.0, 4.0));
        assert_eq!((read[2].id, read[2].etime, read[2].ctime), (7, 99.0, 99.0));
        assert_eq!((read[3].id, read[3].etime, read[3].ctime), (8, 4.0, 4.0));
        for bad in [
            json!([{}]),
            json!([7]),
            json!([{"sequence": -1}]),
            json!([{"sequence": 1001}]),
        ] {
            assert!(records(bad.clone()).is_err(), "{bad}");
        }
    }
}

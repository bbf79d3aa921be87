//! The journal over real folders, over a disk that forgets, and over damaged files.

mod damage;
mod forget;
mod full;
mod model;
mod policy;
mod real;
mod room;

use super::{Acceptance, Journal, Refusal, Settings, Standing};
use crate::message::payload::{HistoryGet, HistoryPut, JobResult, Record, Status, Tail, code};
use crate::message::text::Data;
use std::path::Path;

pub fn settings(folder: &Path) -> Settings {
    Settings {
        folder: folder.join("journal"),
        state: folder.to_owned(),
        bytes: 1 << 20,
        memory_bytes: 256 << 10,
        sync: true,
        goes_on: None,
    }
}

pub fn job(token: &str) -> Acceptance<'_> {
    Acceptance {
        token,
        conversation: token,
        what: "true",
        origin: "poseidon",
        reserve: 1024,
    }
}

/// The end of a job with so many bytes of output in its tail.
pub fn result(tail: usize) -> String {
    let result = JobResult {
        exit_code: Some(0),
        started_at: Some(1_763_728_000.123),
        elapsed_ms: 3,
        tail: Tail {
            stdout: Data::from_bytes("x".repeat(tail).as_bytes()),
            ..Tail::default()
        },
        ..JobResult::without_process(Status::Succeeded, None)
    };
    serde_json::to_string(&result).unwrap()
}

/// An event, for [`Journal::events`].
pub fn event(bytes: usize) -> (f64, String) {
    let cef = format!("CEF:0|v|p|1|s|{}|5|", "n".repeat(bytes));
    let data = serde_json::json!({"host": "h", "source": "command", "cef": cef});
    (5.0, data.to_string())
}

pub fn put(code: u32, bytes: usize) -> HistoryPut {
    HistoryPut {
        code: Some(code),
        data: serde_json::json!("v".repeat(bytes)),
        ..HistoryPut::default()
    }
}

/// A token as they are on the wire.
pub fn token(n: usize) -> String {
    format!("{n:032x}")
}

/// All records behind an id, as the link reads them.
pub fn read_behind(journal: &Journal, mut id: u64) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(record) = journal.next(id) {
        assert!(record.id > id, "{} behind {id}", record.id);
        id = record.id;
        records.push(record);
    }
    records
}

/// What of a record has to stay as it is: id, token, code, data.
pub type Content = (u64, String, u32, String);

pub fn content(record: &Record) -> Content {
    (
        record.id,
        record.token.clone(),
        record.code,
        record.data.get().to_owned(),
    )
}

pub fn contents(journal: &Journal) -> Vec<Content> {
    read_behind(journal, 0).iter().map(content).collect()
}

pub fn status_of(record: &Record) -> Status {
    let result: JobResult = serde_json::from_str(record.data.get()).unwrap();
    result.status
}

pub fn run_job(journal: &Journal, token: &str) {
    journal.accept(&job(token)).unwrap();
    journal.end(token, token, code::SUCCEEDED, result(0));
}

pub fn is_ended(journal: &Journal, token: &str) -> bool {
    matches!(journal.find(token), Some(Standing::Ended(_)))
}

pub fn refusal(journal: &Journal, token: &str) -> Refusal {
    journal.accept(&job(token)).unwrap_err()
}

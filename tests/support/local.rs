//! The agent's local socket, asked without a process for each question.

use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use triton::local::client::Client;
use triton::message::Message;
use triton::message::payload::{self, History, HistoryGet, HistoryPut, Record};

/// How long the daemon may take. One that is killed closes its socket, so nothing waits for this.
const DEADLINE: Duration = Duration::from_secs(30);
const LIMIT: usize = 4 << 20;

pub fn ask(socket: &Path, request: &Message) -> Result<Message, String> {
    let mut client = Client::connect(socket, LIMIT).map_err(|e| e.to_string())?;
    let answer = client.ask(request, Instant::now() + DEADLINE);
    let answer = answer.map_err(|e| e.to_string())?;
    if answer.kind == payload::ERROR {
        return Err(answer.payload.unwrap_or_default());
    }
    Ok(answer)
}

pub fn status(socket: &Path) -> Option<Value> {
    let answer = ask(socket, &Message::new(payload::AGENT_STATUS)).ok()?;
    answer.read().ok()
}

/// Stores a value. `Ok` is its sequence: from here on it must never be lost.
pub fn put(socket: &Path, data: Value) -> Result<u64, String> {
    let put = HistoryPut {
        data,
        ..HistoryPut::default()
    };
    let answer = ask(socket, &Message::with(payload::HISTORY_PUT, &put))?;
    let result: Value = answer.read().map_err(|e| e.to_string())?;
    result["sequence"]
        .as_u64()
        .ok_or_else(|| format!("no sequence in {result}"))
}

/// All that the agent's journal still has.
pub fn history(socket: &Path) -> Result<Vec<Record>, String> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let get = HistoryGet {
            id: Some(all.last().map_or(0, |r| r.id)),
            limit: Some(1000),
            ..HistoryGet::default()
        };
        let answer = ask(socket, &Message::with(payload::HISTORY_GET, &get))?;
        let page: History = answer.read_json().map_err(|e| e.to_string())?;
        let end = page.records.is_empty() || !page.more;
        all.extend(page.records);
        if end {
            return Ok(all);
        }
    }
}

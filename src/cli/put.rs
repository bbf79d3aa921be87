//! `triton put`: stores a value in the journal, from which Poseidon gets it.

use super::{history, print, unexpected};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::local::client::Client;
use crate::message::payload::{self, HISTORY_PUT, HistoryPut};
use crate::message::{Message, id};
use crate::sys::poll::after;
use serde_json::Value;
use std::time::Duration;

/// How long the daemon may take to bring the value to the disk; a worn flash is slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a value, by the protocol.
const DATA_LIMIT: u64 = 64 * 1024;
/// Names the job that a process belongs to.
const JOB: &str = "TRITON_JOB";

/// What `triton put` is to store.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Put {
    pub token: Option<String>,
    pub code: Option<u32>,
    /// The data, or a key and its value; `-` is standard input.
    pub words: Vec<String>,
}

pub fn run(config: &Config, put: &Put, json: bool) -> Result<u8> {
    let data = match put.words.last().map(String::as_str) {
        Some("-") | None => read_stdin()?,
        Some(text) => value(text),
    };
    let data = match &put.words[..] {
        [key, _] => Value::Object([(key.clone(), data)].into_iter().collect()),
        _ => data,
    };
    let token = put.token.clone().or_else(job).unwrap_or_else(id::random);
    let request = HistoryPut {
        token: Some(token.clone()),
        code: put.code,
        etime: None,
        data,
    };
    let mut client = Client::connect(&config.socket, config.limits.message_bytes)?;
    let answer = client.ask(&Message::with(HISTORY_PUT, &request), after(PATIENCE))?;
    match answer.kind.as_str() {
        payload::RESULT => {}
        payload::ERROR => return Err(history::refusal(&answer)),
        other => return Err(unexpected(other)),
    }
    let sequence = history::stored(&answer)?;
    if json {
        let text = serde_json::json!({ "sequence": sequence, "token": token });
        print(&format!("{text}\n"));
    } else {
        print(&format!("{sequence}\n"));
    }
    Ok(0)
}

/// The job that this process belongs to.
pub fn job() -> Option<String> {
    std::env::var(JOB).ok().filter(|token| !token.is_empty())
}

/// JSON as it is, any other text as a JSON text.
fn value(text: &str) -> Value {
    payload::from_json(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn read_stdin() -> Result<Value> {
    let bytes = super::read_stdin(DATA_LIMIT, "a value has no more")?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::new("standard input is not UTF-8; send such bytes in base64"))?;
    // The end of the line that echo and most programs write is not part of a text.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(value(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_stored_as_such_and_all_else_as_a_text() {
        for (text, stored) in [
            ("{\"a\": [1, null]}", json!({"a": [1, null]})),
            ("7", json!(7)),
            ("true", json!(true)),
            ("\"x\"", json!("x")),
            ("hello", json!("hello")),
            ("{broken", json!("{broken")),
            ("", json!("")),
            ("1 2", json!("1 2")),
            ("1e999", json!("1e999")),
        ] {
            assert_eq!(value(text), stored, "{text}");
        }
        let deep = "[".repeat(10_000);
        assert_eq!(value(&deep), json!(deep));
    }
}

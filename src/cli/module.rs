//! `triton module`: the plugins of this agent.

use super::{exec, history, print, printable, unexpected};
use crate::config::Config;
use crate::dates;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::message::payload::{self, ERROR, MODULE_KILL, MODULE_LIST, MODULE_START, RESULT};
use crate::sys::poll::after;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// One that is killed has some time to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether `module` can be given these words.
pub fn is_sound(words: &[String]) -> bool {
    matches!(
        (words.first().map(String::as_str), words.len()),
        (Some("ls"), 1) | (Some("kill" | "start"), 2) | (Some("ask"), 2 | 3)
    )
}

pub fn run(config: &Config, words: &[String], as_json: bool) -> Result<u8> {
    let word = |at: usize| words.get(at).map(String::as_str).unwrap_or_default();
    let request = match word(0) {
        "kill" => Message::with(MODULE_KILL, &json!({ "name": word(1) })),
        "start" => Message::with(MODULE_START, &json!({ "name": word(1) })),
        "ask" => {
            let payload = words.get(2).map_or("{}", String::as_str);
            let payload: Value = payload::from_json(payload)
                .map_err(|e| Error::because("the request of a plugin is JSON, such as '{}'", e))?;
            let request = Message::with(word(1), &payload);
            return exec::follow(&mut exec::connect(config)?, &request);
        }
        _ => Message::new(MODULE_LIST),
    };
    let answer = exec::connect(config)?.ask(&request, after(PATIENCE))?;
    match answer.kind.as_str() {
        RESULT => Ok(0),
        MODULE_LIST => {
            let list: Value = answer
                .read()
                .map_err(|e| Error::because("the daemon's plugins", e))?;
            print(&if as_json {
                format!("{list:#}\n")
            } else {
                table(&list)
            });
            Ok(0)
        }
        ERROR => Err(history::refusal(&answer)),
        other => Err(unexpected(other)),
    }
}

/// What runs beside the agent first: it is what an operator looks for.
fn table(list: &Value) -> String {
    let empty = Vec::new();
    let all = list["modules"].as_array().unwrap_or(&empty);
    let is_builtin = |module: &&Value| module["kind"] == "builtin";
    let (own, others): (Vec<&Value>, Vec<&Value>) = all.iter().partition(is_builtin);
    let text = |value: &Value| value.as_str().map(printable).unwrap_or_default();
    let mut out = String::new();
    for one in others {
        let (name, state) = (text(&one["name"]), text(&one["state"]));
        let version = text(&one["version"]);
        let _ = write!(out, "{name:<16} {state:<8}");
        for (what, value) in [("", version), (" process ", one["pid"].to_string())] {
            if !value.is_empty() && value != "null" {
                let _ = write!(out, " {what}{value}");
            }
        }
        if let Some(since) = one["since"].as_f64() {
            let _ = write!(out, ", since {}", dates::utc(since));
        }
        if let Some(count) = one["restarts"].as_u64().filter(|count| *count > 0) {
            let _ = write!(out, ", restarts {count}");
        }
        let types = one["types"].as_array().into_iter().flatten().map(text);
        let types: Vec<_> = types.collect();
        if !types.is_empty() {
            let _ = write!(out, ", for {}", types.join(" "));
        }
        if let Some(reason) = one["reason"].as_str() {
            let _ = write!(out, "\n                 {}", printable(reason));
        }
        out.push('\n');
    }
    let with = |state: &str| {
        let names = own.iter().filter(|one| one["state"] == state);
        let names: Vec<_> = names.map(|one| text(&one["name"])).collect();
        names.join(" ")
    };
    let _ = writeln!(out, "built in: {}", with("running"));
    let off = with("off");
    if !off.is_empty() {
        let _ = writeln!(out, "switched off (plugins.off): {off}");
    }
    out
}

//! `triton schedule`: what runs by the device's own clock.

use super::{columns, history, print, printable, unexpected};
use crate::config::Config;
use crate::dates;
use crate::error::{Error, Result};
use crate::local::client::Client;
use crate::message::Message;
use crate::message::payload::{ERROR, SCHEDULE_LIST};
use crate::sys::poll::after;
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;

/// The daemon answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);
const TITLES: [&str; 6] = ["NAME", "FROM", "CRON", "NEXT", "LAST", "STATUS"];

pub fn run(config: &Config, json: bool) -> Result<u8> {
    let mut client = Client::connect(&config.socket, config.limits.message_bytes)?;
    let answer = client.ask(&Message::new(SCHEDULE_LIST), after(PATIENCE))?;
    match answer.kind.as_str() {
        SCHEDULE_LIST => {}
        ERROR => return Err(history::refusal(&answer)),
        other => return Err(unexpected(other)),
    }
    let list: Value = answer
        .read()
        .map_err(|e| Error::because("the daemon's schedule", e))?;
    if json {
        print(&format!("{list:#}\n"));
    } else {
        print(&table(&list));
    }
    Ok(0)
}

/// Times are in UTC, as in the history.
fn table(list: &Value) -> String {
    let mut rows = vec![TITLES.map(str::to_owned)];
    for entry in list["entries"].as_array().into_iter().flatten() {
        let text = |value: &Value| value.as_str().map(printable).unwrap_or_default();
        let time = |value: &Value| value.as_f64().map(dates::utc);
        let next = match (time(&entry["next"]), entry["enabled"].as_bool()) {
            (_, Some(false)) => "off".to_owned(),
            _ if !entry["problem"].is_null() => "never".to_owned(),
            (Some(next), _) => next,
            (None, _) => "-".to_owned(),
        };
        let mut status = match entry["running"].as_u64() {
            Some(count) => format!("running ({count})"),
            None if entry["waiting"] == true => "waiting".to_owned(),
            None => text(&entry["last"]["status"]),
        };
        if !entry["problem"].is_null() {
            status = text(&entry["problem"]);
        }
        let mut cron = text(&entry["cron"]);
        if let Some(zone) = entry["timeZone"].as_str() {
            let _ = write!(cron, " {}", printable(zone));
        }
        let before = time(&entry["last"]["time"]).unwrap_or_else(|| "-".to_owned());
        let (name, source) = (text(&entry["name"]), text(&entry["source"]));
        rows.push([name, source, cron, next, before, status]);
    }
    let mut out = String::new();
    if rows.len() == 1 {
        out.push_str("Nothing is scheduled.\n");
    } else {
        out.push_str(&columns(&rows));
    }
    if let Some(problem) = list["problem"].as_str() {
        let _ = writeln!(out, "problem: {}", printable(problem));
    }
    out
}

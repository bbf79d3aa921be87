//! `triton status`: what the running agent does.

use super::{print, printable, unexpected};
use crate::config::Config;
use crate::dates;
use crate::error::{Error, Result};
use crate::local::client::Client;
use crate::message::Message;
use crate::message::payload::AGENT_STATUS;
use serde_json::Value;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// The daemon answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the daemon for its status.
pub fn ask(config: &Config) -> Result<Value> {
    let mut client = Client::connect(&config.socket, config.limits.message_bytes)?;
    let answer = client.ask(&Message::new(AGENT_STATUS), Instant::now() + PATIENCE)?;
    if answer.kind != AGENT_STATUS {
        return Err(unexpected(&answer.kind));
    }
    answer
        .read()
        .map_err(|e| Error::because("the daemon's status", e))
}

/// `triton status`.
pub fn run(config: &Config, json: bool) -> Result<u8> {
    let status = ask(config)?;
    if json {
        print(&format!("{status:#}\n"));
    } else {
        print(&describe(&status));
    }
    Ok(0)
}

/// The same for people, a line for each part of it.
pub fn describe(status: &Value) -> String {
    let text = |pointer: &str| status.pointer(pointer).map(plain).unwrap_or_default();
    let seconds = |pointer: &str| status.pointer(pointer).and_then(Value::as_f64);
    let now = seconds("/time").unwrap_or_default();
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<11} {value}");
        }
    };
    let running = seconds("/startedAt").map_or(String::new(), |at| age(now - at));
    line(
        "triton",
        &format!(
            "{}, process {}, running for {running}",
            text("/version"),
            text("/pid")
        ),
    );
    let fleeting = text("/instanceReason");
    line(
        "instance",
        &if fleeting.is_empty() {
            text("/instance")
        } else {
            format!("{}, of this process only: {fleeting}", text("/instance"))
        },
    );
    line(
        "identifier",
        &format!("{} (fingerprint)", text("/identifier")),
    );
    let refused = text("/configurationRefused");
    if !refused.is_empty() {
        let text = format!("refused: {refused}; the one before it stays in force");
        line("configuration", &text);
    }
    let since = seconds("/link/since").map_or(String::new(), |at| age(now - at));
    let place = text("/link/url");
    line(
        "Poseidon",
        &match text("/link/state").as_str() {
            "connected" => format!("connected to {place} for {since}"),
            "waiting" => {
                let left = seconds("/link/nextAttempt").map_or(0.0, |at| (at - now).max(0.0));
                format!("not connected for {since}; next attempt in {}", age(left))
            }
            "connecting" => "connecting".to_owned(),
            _ => "no url is configured: working offline".to_owned(),
        },
    );
    line("name", &text("/link/name"));
    line("trust", &trust(status));
    line("last error", &text("/link/lastError"));
    line("journal", &journal(&text));
    line("scripts", &text("/scripts/revision"));
    let act = status.pointer("/jobs/stopsFor").and_then(Value::as_str);
    let stops = act.map_or(String::new(), |act| {
        format!(
            "; nothing new starts: {} has been asked for",
            printable(act)
        )
    });
    line(
        "jobs",
        &format!(
            "{} running, {} waiting{stops}",
            text("/jobs/running"),
            text("/jobs/waiting")
        ),
    );
    line("schedule", &schedule(&text, &seconds));
    line("plugins", &plugins(&status["modules"]));
    line("events", &events(status, &text));
    line("relay", &relay(status, &text));
    line("policy", &policy(status, &text));
    if let Some(rss) = seconds("/rss") {
        line("memory", &format!("{:.1} MB resident", rss / 1e6));
    }
    out
}

/// Where the journal is, why not where it should be, and what Poseidon has not got of it.
fn journal(text: &dyn Fn(&str) -> String) -> String {
    let reason = text("/journal/reason");
    let place = match (text("/journal/state").as_str(), reason.as_str()) {
        ("", _) => return String::new(),
        ("disk", "") => "on disk".to_owned(),
        ("disk", reason) => format!("on disk: {reason}"),
        (_, "") => "in memory".to_owned(),
        (_, reason) => format!("in memory: {reason}"),
    };
    let mut said = match text("/journal/waiting").as_str() {
        "1" => format!("{place}, 1 record waits for Poseidon"),
        waiting => format!("{place}, {waiting} records wait for Poseidon"),
    };
    if let (Ok(bytes), Ok(limit)) = (
        text("/journal/bytes").parse::<f64>(),
        text("/journal/limit").parse::<f64>(),
    ) {
        let _ = write!(said, "; {:.0} of {:.0} kB", bytes / 1e3, limit / 1e3);
    }
    for (what, name) in [
        ("events were dropped", "dropped"),
        ("records were damaged", "damaged"),
    ] {
        match text(&format!("/journal/{name}")).as_str() {
            "" | "0" => {}
            count => {
                let _ = write!(said, "; {count} {what}");
            }
        }
    }
    said
}

/// Whom the device obeys, and whether it is connected to that one.
fn trust(status: &Value) -> String {
    let trust = &status["trust"];
    let keys = trust["poseidonKeys"].as_array().into_iter().flatten();
    let keys: Vec<String> = keys.map(plain).collect();
    let keys = keys.join(", ");
    let mut said = match trust["state"].as_str() {
        Some("open") => "open: no Poseidon is pinned".to_owned(),
        Some("trusted") => format!("connected to the Poseidon of the key {keys}"),
        Some("untrusted") => format!("this is NOT the Poseidon that it obeys ({keys})"),
        Some(_) => format!("obeys only the Poseidon of the key {keys}"),
        None => return String::new(),
    };
    if let Some(refused) = trust["refused"].as_u64().filter(|n| *n > 0) {
        let _ = write!(said, "; {refused} requests refused");
    }
    if let Some(problem) = trust["problem"].as_str() {
        let _ = write!(said, "; {}", printable(problem));
    }
    said
}

/// How much the device runs by its own clock, and what is wrong with that.
fn schedule(text: &dyn Fn(&str) -> String, seconds: &dyn Fn(&str) -> Option<f64>) -> String {
    let mut said = match text("/schedule/entries").as_str() {
        "" | "0" => String::new(),
        count => format!("{count} entries"),
    };
    if let Some(next) = seconds("/schedule/next") {
        said = format!("{said}, next at {}", dates::utc(next));
    }
    if let Some(problem) = Some(text("/schedule/problem")).filter(|p| !p.is_empty() && p != "null")
    {
        said = format!("{said}; {problem}");
    }
    said.trim_start_matches("; ").to_owned()
}

/// Those that run beside the agent, and what is not as it is built.
fn plugins(modules: &Value) -> String {
    let modules = modules.as_array().into_iter().flatten();
    let said = modules.filter_map(|module| {
        let state = module["state"].as_str()?;
        let builtin = module["kind"] == "builtin";
        let name = printable(module["name"].as_str()?);
        let why = module["reason"]
            .as_str()
            .map(|why| format!(" ({})", printable(why)));
        (!builtin || state != "running")
            .then(|| format!("{name} {}{}", printable(state), why.unwrap_or_default()))
    });
    said.collect::<Vec<_>>().join(", ")
}

/// How many events were stored, what was not, and where they should come from and do not.
fn events(status: &Value, text: &dyn Fn(&str) -> String) -> String {
    let sources = status.pointer("/events/sources").and_then(Value::as_array);
    let sources = sources.map_or(&[][..], Vec::as_slice);
    let stored = text("/events/stored");
    if sources.is_empty() && matches!(stored.as_str(), "" | "0") {
        return String::new();
    }
    let mut said = format!(
        "{stored} stored; of the listener and files {} refused, {} without CEF, {} too many",
        text("/events/refused"),
        text("/events/notCef"),
        text("/events/limited")
    );
    for source in sources.iter().filter(|source| !source[1].is_null()) {
        let _ = write!(said, "; {}: {}", plain(&source[0]), plain(&source[1]));
    }
    said
}

/// Where other agents connect, how many have, and what became of the others.
fn relay(status: &Value, text: &dyn Fn(&str) -> String) -> String {
    let Some(nodes) = status.pointer("/relay/nodes").and_then(Value::as_array) else {
        return String::new();
    };
    if let Some(problem) = status.pointer("/relay/problem").and_then(Value::as_str) {
        return printable(problem);
    }
    let (at, count, limit) = (text("/relay/listen"), nodes.len(), text("/relay/limit"));
    let mut said = format!("at {at}, {count} of {limit} connections in use");
    if let Some(reason) = status.pointer("/relay/reason").and_then(Value::as_str) {
        let (refused, reason) = (text("/relay/refused"), printable(reason));
        let _ = write!(said, "; {refused} refused, the last: {reason}");
    }
    said
}

/// Only where something was refused, and by which rules; 'triton policy show' has the rest.
fn policy(status: &Value, text: &dyn Fn(&str) -> String) -> String {
    let count = text("/policy/refused");
    if matches!(count.as_str(), "" | "0") {
        return String::new();
    }
    let mut said = format!(
        "{}, {count} requests of Poseidon's were refused (see 'triton policy show')",
        text("/policy/profile")
    );
    let rules = status["policy"]["rules"].as_array().into_iter().flatten();
    for rule in rules.filter(|rule| rule["refused"] != 0) {
        let (name, refused) = (plain(&rule["name"]), &rule["refused"]);
        let _ = write!(said, "; {refused} by {name}");
    }
    said
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_status_reads_well_and_obeys_no_terminal_codes() {
        let text = super::describe(&serde_json::json!({
            "version": "1", "pid": 7, "startedAt": 0.0, "time": 100.0, "instance": "i", "identifier": "f",
            "link": {"state": "waiting", "since": 40.0, "nextAttempt": 105.0, "lastError": "tcp: \u{1b}[2J"},
            "jobs": {"running": 1, "waiting": 2}, "rss": 2_000_000, "instanceReason": "no room",
            "journal": {"state": "memory", "reason": "no room", "waiting": 3, "bytes": 2600, "limit": 65536, "damaged": 1},
            "scripts": {"revision": "r-7"}, "modules": [{"name": "a", "kind": "external", "state": "failed", "reason": "b"}],
            "policy": {"profile": "open", "refused": 5,
                       "rules": [{"name": "x", "action": "deny", "refused": 4}, {"name": "y", "action": "deny", "refused": 0}]},
        }));
        assert!(
            text.contains("; 3 of 66 kB; 1 records were damaged\n"),
            "{text}"
        );
        assert!(
            text.contains("a failed (b)") && text.contains("show'); 4 by x\n"),
            "{text}"
        );
        assert!(
            text.contains("not connected for 60 s; next attempt in 5 s"),
            "{text}"
        );
        assert!(
            text.contains("1 running, 2 waiting") && text.contains("2.0 MB"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}') && text.contains("scripts     r-7"));
        assert!(
            text.contains("in memory: no room, 3 records wait"),
            "{text}"
        );
        assert!(text.contains("i, of this process only: no room"), "{text}");
        let text =
            super::describe(&serde_json::json!({"journal": {"state": "disk", "waiting": 1}}));
        assert!(text.contains("on disk, 1 record waits"), "{text}");
    }
}

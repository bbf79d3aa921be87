//! `poseidon events`: the CEF events of devices, and how they go to the SIEM.

use super::client::{Client, segment};
use super::commands::{rows, say};
use super::follow::{Away, Outage, Patience};
use super::since;
use super::tables::{ago, bytes, clean, text};
use clap::Args;
use serde_json::Value;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Events that are asked for at a time.
const PAGE: u64 = 500;
/// Seconds for which the server waits for events to come.
const WAIT: u32 = 10;

#[derive(Args)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Events {
    /// Words that must all be in it; `fail*` for the beginning of one, "in double quotes" as it stands
    #[arg(long)]
    text: Option<String>,
    /// At least so severe, 0 to 10; events of unknown severity are left out then
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=10))]
    severity: Option<u8>,
    /// Of this vendor
    #[arg(long)]
    vendor: Option<String>,
    /// Of this product
    #[arg(long)]
    product: Option<String>,
    /// Only of devices that a selector means, as for `run`; can be repeated
    #[arg(long, value_name = "SELECTOR")]
    on: Vec<String>,
    /// Only what happened since then: a Unix time, a date or date and time, or an age (90s, 15m, 2h, 3d)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<f64>,
    /// Only what happened until then
    #[arg(long, value_name = "TIME", value_parser = since)]
    until: Option<f64>,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    limit: u64,
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Print the API's JSON, one event a line
    #[arg(long)]
    json: bool,
    /// Print the events' own lines and nothing else
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Show how events go to the SIEM, and how many are kept
    #[arg(long, conflicts_with_all = ["text", "severity", "vendor", "product", "on", "since", "until", "follow", "raw"])]
    forwarding: bool,
    #[command(flatten)]
    patience: Patience,
}

impl Events {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        if self.forwarding {
            return forwarding(client, self.json).await;
        }
        let query = self.query();
        // Where to go on, before what is there is looked for: what comes meanwhile is not missed.
        let state: Value = client.get("/cef/state").await?;
        let mut after = state["newest"].as_u64().unwrap_or(0);
        let (mut found, mut before, mut more) = (Vec::new(), after.saturating_add(1), true);
        while more && (found.len() as u64) < self.limit {
            let limit = (self.limit - found.len() as u64).min(PAGE);
            let path = format!("/cef?limit={limit}&before={before}{query}");
            let mut answer: Value = client.get(&path).await?;
            more = answer["next"].is_u64();
            before = answer["next"].as_u64().unwrap_or(0);
            if let Value::Array(events) = answer["events"].take() {
                found.extend(events);
            }
        }
        // The newest come first.
        found.reverse();
        if !self.print(&found)? {
            return Ok(ExitCode::SUCCESS);
        }
        if more && !self.follow {
            eprintln!(
                "poseidon: older events were not looked at: there are more than --limit {}",
                self.limit
            );
        }
        if !self.follow {
            return Ok(ExitCode::SUCCESS);
        }
        let mut outage = Outage::new(self.patience, Away::default());
        let mut client = client.clone();
        loop {
            let path = format!("/cef?limit={PAGE}&after={after}&wait={WAIT}{query}");
            let answer = outage.get(&mut client, &path).await?;
            let events: Vec<Value> = rows(&answer, "events").cloned().collect();
            after = answer["next"].as_u64().unwrap_or(after);
            if !self.print(&events)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    fn query(&self) -> String {
        let mut query = String::new();
        for (field, value) in [
            ("text", &self.text),
            ("vendor", &self.vendor),
            ("product", &self.product),
        ] {
            if let Some(value) = value {
                let _ = write!(query, "&{field}={}", segment(value));
            }
        }
        for selector in &self.on {
            let _ = write!(query, "&on={}", segment(selector));
        }
        if let Some(severity) = self.severity {
            let _ = write!(query, "&severity={severity}");
        }
        for (field, time) in [("since", self.since), ("until", self.until)] {
            if let Some(time) = time {
                let _ = write!(query, "&{field}={time}");
            }
        }
        query
    }

    /// Prints events; false where nobody reads them any more.
    fn print(&self, events: &[Value]) -> Result<bool, String> {
        let mut out = String::new();
        for event in events {
            if self.json {
                out.push_str(&event.to_string());
            } else if self.raw {
                out.push_str(&clean(event["line"].as_str().unwrap_or_default()));
            } else {
                out.push_str(&line(event));
            }
            out.push('\n');
        }
        say(&out)
    }
}

/// An event on one line.
fn line(event: &Value) -> String {
    let time = event["time"]
        .as_f64()
        .map_or("-".to_owned(), triton::dates::utc);
    let severity = event["severity"]
        .as_u64()
        .map_or("?".to_owned(), |severity| severity.to_string());
    let mut line = format!("{time}  {}  {severity:>2}  ", text(&event["agent"]));
    if event["name"].is_string() {
        let _ = write!(
            line,
            "{} {}: {}",
            text(&event["vendor"]),
            text(&event["product"]),
            text(&event["name"])
        );
        let extension = extension(event["line"].as_str().unwrap_or_default());
        if !extension.is_empty() {
            let _ = write!(line, "  {}", clean(extension));
        }
    } else {
        line.push_str(&text(&event["line"]));
    }
    line
}

/// What stands behind the header.
fn extension(line: &str) -> &str {
    let (mut bars, mut escaped) = (0, false);
    for (at, c) in line.char_indices() {
        match c {
            '|' if !escaped => bars += 1,
            '\\' => {
                escaped = !escaped;
                continue;
            }
            _ => {}
        }
        escaped = false;
        if bars == 7 {
            return &line[at + 1..];
        }
    }
    ""
}

async fn forwarding(client: &Client, json: bool) -> Result<ExitCode, String> {
    let state: Value = client.get("/cef/state").await?;
    if json {
        println!("{state}");
        return Ok(ExitCode::SUCCESS);
    }
    if state["bytes"].is_null() {
        return Err(
            "this token is for some devices only, and --forwarding is about all".to_owned(),
        );
    }
    println!(
        "kept          {} of {}, up to event {}; {} pruned",
        bytes(&state["bytes"]),
        bytes(&state["limitBytes"]),
        text(&state["newest"]),
        text(&state["pruned"])
    );
    let to = &state["forwarding"];
    if to.is_null() {
        println!("forwarding    off: `poseidon serve --siem tls://HOST:6514` turns it on");
        return Ok(ExitCode::SUCCESS);
    }
    println!("SIEM          {}", text(&to["target"]));
    println!(
        "state         {}, since {}",
        text(&to["state"]),
        ago(&to["since"])
    );
    if to["error"].is_string() {
        println!("last error    {}", text(&to["error"]));
    }
    println!(
        "sent          {} events, up to event {}",
        text(&to["sent"]),
        text(&to["sentThrough"])
    );
    println!("waiting       {} events", text(&to["waiting"]));
    println!("pruned unsent {} events", text(&to["prunedUnsent"]));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let event = json!({
            "agent": "gate", "time": 1_700_000_000.5, "severity": 8, "vendor": "Acme", "product": "Fire|wall",
            "name": "Login\nfailed", "line": r"CEF:0|Acme|Fire\|wall|1|100|Login|8|src=10.0.0.1 msg=\u{1b}[2J",
        });
        assert_eq!(
            line(&event),
            r"2023-11-14T22:13:20Z  gate   8  Acme Fire|wall: Login failed  src=10.0.0.1 msg=\u{1b}[2J"
        );
        let event =
            json!({"agent": "gate", "time": 0, "severity": null, "line": "no\u{1b}[2J CEF\n"});
        assert_eq!(
            line(&event),
            "1970-01-01T00:00:00Z  gate   ?  no\u{FFFD}[2J CEF "
        );
        assert_eq!(extension(r"CEF:0|a\\|b|c|d|e|5|x=1|2"), "x=1|2");
        assert_eq!(extension("CEF:0|a"), "");
    }
}

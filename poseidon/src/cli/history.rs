//! `poseidon history`: what devices have recorded, as Poseidon has stored it.

use super::client::{Client, segment};
use super::commands::{rows, say};
use super::follow::{Away, Outage, Patience};
use super::jobs::outcome;
use super::since;
use super::tables::{clean, cut, text};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::sleep;
use triton::message::payload::code;

/// How often the server is asked for more.
const POLL: Duration = Duration::from_secs(1);
/// Records that are asked for at a time.
const PAGE: u32 = 500;
/// Records that are gathered before they are printed.
const MAX: i64 = 1_000_000;
/// Longest summary, in characters.
const SUMMARY: usize = 120;

#[derive(Args)]
pub(super) struct History {
    /// NAME or NAME/INSTANCE; without it, all devices
    name: Option<String>,
    /// Only about this token, such as a job's ID
    #[arg(long)]
    token: Option<String>,
    /// Only with this code: accepted, ok, failed, dropped, skipped, or a number
    #[arg(long, value_parser = parse_code)]
    code: Option<u32>,
    /// Only what happened since then (etime), by the device's clock: a Unix time, a date or date and time
    /// (2025-06-01T12:30:00Z), or an age (90s, 15m, 2h, 3d)
    #[arg(long, visible_alias = "etime", value_name = "TIME", value_parser = since)]
    since: Option<f64>,
    /// Only what was stored on the device since then (ctime), by its clock: a time as for --since
    #[arg(long, value_name = "TIME", value_parser = since)]
    ctime: Option<f64>,
    /// Only what stands behind this record (id) in the journal of the one device that is named, which has to be
    /// NAME/INSTANCE where several share the name
    #[arg(long, value_name = "N", requires = "name")]
    id: Option<u64>,
    /// The newest so many, with --id the first, 1 to 1000000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=MAX))]
    limit: u32,
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Print the API's JSON, one record a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    patience: Patience,
}

fn parse_code(text: &str) -> Result<u32, String> {
    match text {
        "accepted" => Ok(code::ACCEPTED),
        "ok" => Ok(code::SUCCEEDED),
        "failed" => Ok(code::FAILED),
        "dropped" => Ok(code::DROPPED),
        "skipped" => Ok(code::SKIPPED),
        _ => text.parse().map_err(|_| {
            "accepted, ok, failed, dropped, skipped or a number is expected".to_owned()
        }),
    }
}

impl History {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        let query = self.query();
        let (records, more) = self.gather(client, &query).await?;
        let records: Vec<&Value> = records.iter().collect();
        let mut after = last_row(&records, 0);
        if !self.print(&records)? {
            return Ok(ExitCode::SUCCESS);
        }
        if more && (self.id.is_none() || !self.follow) {
            let which = if self.id.is_some() { "newer" } else { "older" };
            eprintln!(
                "poseidon: {which} records are not shown: there are more than --limit {}",
                self.limit
            );
        }
        if !self.follow {
            return Ok(ExitCode::SUCCESS);
        }
        let mut outage = Outage::new(self.patience, Away::default());
        let mut client = client.clone();
        loop {
            let path = format!("/history?limit={PAGE}&after={after}{query}");
            let answer = outage.get(&mut client, &path).await?;
            let mut records: Vec<&Value> = rows(&answer, "records").collect();
            // Each is printed once, whatever the server answers.
            records.retain(|record| row(record) > after);
            after = last_row(&records, after);
            if !self.print(&records)? {
                return Ok(ExitCode::SUCCESS);
            }
            if answer["more"] != true || records.is_empty() {
                sleep(POLL).await;
            }
        }
    }

    /// The newest records, or the first behind `--id`; oldest first, and whether there are more.
    async fn gather(&self, client: &Client, query: &str) -> Result<(Vec<Value>, bool), String> {
        let limit = self.limit as usize;
        let newest = self.id.is_none();
        let order = if newest { "&order=desc" } else { "" };
        let mut all: Vec<Value> = Vec::new();
        let mut from = String::new();
        let mut more = true;
        while more && all.len() < limit {
            let page = (limit - all.len()).min(PAGE as usize);
            let path = format!("/history?limit={page}{order}{from}{query}");
            let mut answer: Value = client.get(&path).await?;
            let Value::Array(records) = answer["records"].take() else {
                break;
            };
            // A page may end early, and the next one is further on whatever the server answers.
            let rows = records.iter().map(row);
            from = match if newest { rows.min() } else { rows.max() } {
                Some(row) if newest => format!("&before={row}"),
                Some(row) => format!("&after={row}"),
                None => break,
            };
            more = answer["more"] == true;
            all.extend(records);
        }
        if newest {
            all.reverse();
        }
        Ok((all, more))
    }

    fn query(&self) -> String {
        let mut query = String::new();
        for (field, value) in [("agent", &self.name), ("token", &self.token)] {
            if let Some(value) = value {
                let _ = write!(query, "&{field}={}", segment(value));
            }
        }
        if let Some(code) = self.code {
            let _ = write!(query, "&code={code}");
        }
        for (field, time) in [("etime", self.since), ("ctime", self.ctime)] {
            if let Some(time) = time {
                let _ = write!(query, "&{field}={time}");
            }
        }
        if let Some(id) = self.id {
            let _ = write!(query, "&id={id}");
        }
        query
    }

    /// Prints records; false where nobody reads them any more.
    fn print(&self, records: &[&Value]) -> Result<bool, String> {
        let mut out = String::new();
        for record in records {
            let line = if self.json {
                record.to_string()
            } else {
                line(record)
            };
            out.push_str(&line);
            out.push('\n');
        }
        say(&out)
    }
}

/// Its place in Poseidon's store.
fn row(record: &Value) -> u64 {
    record["row"].as_u64().unwrap_or(0)
}

fn last_row(records: &[&Value], known: u64) -> u64 {
    let rows = records.iter().map(|record| row(record));
    rows.max().unwrap_or(0).max(known)
}

/// A record on one line.
fn line(record: &Value) -> String {
    let instance: String = text(&record["instance"]).chars().take(8).collect();
    format!(
        "{}/{instance}  {}  {}  {}  {}  {}",
        text(&record["agent"]),
        text(&record["id"]),
        record["etime"]
            .as_f64()
            .map_or("-".to_owned(), triton::dates::utc),
        word(&record["code"]),
        text(&record["token"]),
        summary(record),
    )
}

/// What a code means.
fn word(code: &Value) -> String {
    match code.as_u64().and_then(|code| u32::try_from(code).ok()) {
        Some(code::ACCEPTED) => "accepted".to_owned(),
        Some(code::SUCCEEDED) => "ok".to_owned(),
        Some(code::FAILED) => "failed".to_owned(),
        Some(code::EVENT) => "event".to_owned(),
        Some(code::DROPPED) => "dropped".to_owned(),
        Some(code::SKIPPED) => "skipped".to_owned(),
        _ => format!("value {}", text(code)),
    }
}

/// What a record says, in a few words.
fn summary(record: &Value) -> String {
    let data = &record["data"];
    let words = match record["code"].as_u64() {
        Some(0) => format!("{} for {}", text(&data["what"]), text(&data["origin"])),
        Some(1 | 2) if data["status"].is_string() => {
            let how = outcome(&json!({"result": data}));
            match data["message"].as_str() {
                Some(message) if !message.is_empty() => format!("{how}: {}", clean(message)),
                _ => how,
            }
        }
        Some(1 | 2) => outcome(&json!({"error": data})),
        Some(102) => format!("{} events, for want of room", text(&data["events"])),
        Some(103) => skipped(data),
        _ => match data {
            Value::String(text) => clean(text),
            _ => clean(&data.to_string()),
        },
    };
    cut(&words, SUMMARY)
}

/// Times of a schedule that had no run.
fn skipped(data: &Value) -> String {
    let (name, reason) = (text(&data["name"]), text(&data["reason"]));
    let from = data["at"].as_f64().map(triton::dates::utc);
    let times = match data["count"].as_u64() {
        Some(1) => "once".to_owned(),
        Some(count) if count >= 1000 => "1000 times or more".to_owned(),
        _ => format!("{} times", text(&data["count"])),
    };
    let from = from.unwrap_or_else(|| "-".to_owned());
    format!("{name} did not run {times} from {from}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(code: u32, data: &Value) -> String {
        line(&json!({
            "row": 7, "agent": "gate", "instance": "0123456789abcdef", "id": 41, "token": "t",
            "code": code, "etime": 1_700_000_000.5, "ctime": 1_700_000_000.5, "data": data,
        }))
    }

    #[test]
    fn a_record_is_one_line_whatever_it_holds() {
        let begin = "gate/01234567  41  2023-11-14T22:13:20Z  ";
        for (code, data, rest) in [
            (
                0,
                json!({"what": "uname", "origin": "poseidon"}),
                "accepted  t  uname for poseidon",
            ),
            (
                1,
                json!({"status": "succeeded", "exitCode": 0}),
                "ok  t  succeeded",
            ),
            (
                2,
                json!({"status": "failed", "exitCode": 3}),
                "failed  t  failed (exit code 3)",
            ),
            (
                2,
                json!({"status": "interrupted", "message": "power"}),
                "failed  t  interrupted: power",
            ),
            (
                2,
                json!({"code": "io", "message": "no\nroom"}),
                "failed  t  io: no room",
            ),
            (
                102,
                json!({"events": 12}),
                "dropped  t  12 events, for want of room",
            ),
            (
                103,
                json!({"name": "a", "at": 1_700_000_000, "reason": "over\nlap", "count": 3}),
                "skipped  t  a did not run 3 times from 2023-11-14T22:13:20Z: over lap",
            ),
            (
                200,
                json!({"a": [1, "\u{1b}[2J"]}),
                "value 200  t  {\"a\":[1,\"\\u001b[2J\"]}",
            ),
            (300, json!("\u{1b}[2J\n"), "value 300  t  \u{FFFD}[2J "),
            (0, json!(null), "accepted  t  - for -"),
        ] {
            assert_eq!(shown(code, &data), format!("{begin}{rest}"));
        }
        let long = shown(200, &json!("ä".repeat(1000)));
        assert!(long.ends_with("ä…") && long.chars().count() < 250, "{long}");
    }

    #[test]
    fn codes_have_words() {
        assert_eq!(parse_code("ok"), Ok(1));
        assert_eq!(parse_code("1234"), Ok(1234));
        assert!(parse_code("-1").is_err() && parse_code("good").is_err());
    }
}

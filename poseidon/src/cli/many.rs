//! What all commands have in common that ask one device or many.

use super::client::{Client, segment};
use super::follow::Patience;
use super::length;
use super::tables::clean;
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// Devices that a question or a refusal names.
pub(super) const NAMED: usize = 10;

/// Which devices, and how many at a time.
#[derive(Args)]
// Each is a flag of the command line, on or off by itself.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Many {
    /// Devices that a selector means, such as 'gate-*,os=OpenWrt*,state=up'; can be repeated. Terms, with commas
    /// between them, must all hold: a pattern of a name, label.KEY=, attribute.KEY=, os=, arch=, hostname=, version=,
    /// state=up or down; ! before a term negates it, * and ? stand for anything and for one character
    #[arg(long, value_name = "SELECTOR")]
    pub(super) on: Vec<String>,
    /// With several devices: so many at a time [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    concurrency: Option<u32>,
    /// So many devices first, and the rest only if all of these succeed
    #[arg(long, value_name = "N")]
    canary: Option<u32>,
    /// After so many failures nothing more is started; what runs goes on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    stop_on_failures: Option<u32>,
    /// Print the API's JSON lines instead of the output
    #[arg(long)]
    pub(super) json: bool,
    /// Print the ID of what was started and do not wait
    #[arg(long)]
    pub(super) detach: bool,
    /// Wait for the end, which is what happens without it
    #[arg(long, conflicts_with = "detach")]
    wait: bool,
    /// Wait for devices that are down: they are asked when they are back
    #[arg(long)]
    pub(super) queue: bool,
    /// What waited for so long is not started any more: 90s, 15m, 12h, 3d
    #[arg(long, requires = "queue", value_name = "DURATION", default_value = "24h", value_parser = length)]
    expires: Duration,
    #[command(flatten)]
    pub(super) patience: Patience,
}

impl Many {
    /// Whether this is about one name, which is no batch. It may have several instances.
    pub(super) fn is_one(&self, names: &[String]) -> bool {
        names.len() == 1
            && self.on.is_empty()
            && self.concurrency.is_none()
            && self.canary.is_none()
            && self.stop_on_failures.is_none()
    }

    /// Whether some are tried first.
    pub(super) fn has_canary(&self) -> bool {
        self.canary.is_some()
    }

    /// The body of a request for `what`, an object.
    pub(super) fn body(&self, names: &[String], what: Value) -> Value {
        let mut body = what;
        if !names.is_empty() {
            body["agents"] = json!(names);
        }
        if !self.on.is_empty() {
            body["on"] = json!(self.on);
        }
        for (field, value) in [
            ("concurrency", self.concurrency),
            ("canary", self.canary),
            ("stopOnFailures", self.stop_on_failures),
        ] {
            if let Some(value) = value {
                body[field] = json!(value);
            }
        }
        if self.queue {
            body["queue"] = json!(true);
            body["expiresSeconds"] = json!(self.expires.as_secs());
        }
        body
    }

    /// An error, with the devices that are meant, where these are several.
    pub(super) async fn only_one(
        &self,
        client: &Client,
        names: &[String],
        what: &str,
    ) -> Result<(), String> {
        let path = format!("{}&brief=true", agents_path(&self.on, names));
        let answer: Value = client.get(&path).await?;
        let all: Vec<String> = super::commands::rows(&answer, "agents")
            .map(|agent| clean(agent["name"].as_str().unwrap_or("")))
            .collect();
        if all.len() < 2 {
            return Ok(());
        }
        let more = match all.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(format!(
            "this would {what} {} devices: {}{more}. Nothing was done; if that is right, say so with --yes",
            all.len(),
            all[..all.len().min(NAMED)].join(", ")
        ))
    }
}

/// The list of the agents that are meant.
pub(super) fn agents_path(on: &[String], names: &[String]) -> String {
    let mut path = "/agents?".to_owned();
    for (field, values) in [("on", on), ("agent", names)] {
        for value in values {
            let _ = write!(path, "&{field}={}", segment(value));
        }
    }
    path.replace("?&", "?")
}

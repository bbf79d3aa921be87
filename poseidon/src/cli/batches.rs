//! `poseidon batches` and `poseidon batch`.

mod again;

use super::batch::{STATES, how, name, shared_names, summary};
use super::client::{Client, segment};
use super::commands::{Ended, print, print_json, rows};
use super::follow::Patience;
use super::jobs::command;
use super::tables::{ago, clean, table, text};
use again::Again;
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;

#[derive(Args)]
pub(super) struct Batches {
    /// At most so many, 1 to 500
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
}

impl Batches {
    pub(super) async fn run(self, client: &Client) -> Ended {
        let path = format!("/batches?limit={}", self.limit);
        let answer: Value = client.get(&path).await?;
        if self.json {
            return print_json(&answer);
        }
        let rows: Vec<_> = rows(&answer, "batches")
            .map(|batch| {
                vec![
                    text(&batch["id"]),
                    ago(&batch["created"]),
                    state(batch),
                    text(&batch["total"]),
                    counts(batch),
                    command(batch).chars().take(60).collect(),
                ]
            })
            .collect();
        if rows.is_empty() {
            return print(
                "Nothing was asked of several devices at once yet: poseidon run --on SELECTOR -- COMMAND\n",
            );
        }
        let head = ["BATCH", "CREATED", "STATE", "DEVICES", "SO FAR", "WHAT"];
        print(&table(&head, &rows))
    }
}

fn state(batch: &Value) -> String {
    match batch["stopped"].as_str() {
        Some(why) => format!("{}, stopped ({})", text(&batch["state"]), clean(why)),
        None => text(&batch["state"]),
    }
}

fn counts(batch: &Value) -> String {
    let each = STATES.iter().filter_map(|(state, words)| {
        let n = batch["counts"][state].as_u64().filter(|n| *n > 0)?;
        Some(format!("{n} {words}"))
    });
    each.collect::<Vec<_>>().join(", ")
}

#[derive(Args)]
pub(super) struct Show {
    /// The batch's ID
    batch: String,
    /// Start no more of it, and cancel what runs
    #[arg(long)]
    cancel: bool,
    /// With --cancel: seconds between SIGTERM and SIGKILL
    #[arg(long, value_name = "SECONDS", requires = "cancel")]
    grace: Option<f64>,
    /// Ask the same again of those of its devices that ended so: failed (timed out too), offline, or failed,offline
    #[arg(
        long,
        value_name = "STATE",
        value_delimiter = ',',
        conflicts_with = "cancel"
    )]
    again: Vec<Again>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    patience: Patience,
}

impl Show {
    pub(super) async fn run(self, client: &Client) -> Ended {
        let path = format!("/batches/{}", segment(&self.batch));
        if self.cancel {
            let body = self
                .grace
                .map_or_else(|| json!({}), |s| json!({"graceSeconds": s}));
            let _: Value = client.post(&format!("{path}/cancel"), &body).await?;
            return print(&format!(
                "asked for the end of batch {}\n",
                clean(&self.batch)
            ));
        }
        let batch: Value = client.get(&path).await?;
        if !self.again.is_empty() {
            let made = again::ask(client, &batch, &self.again, self.patience).await?;
            if self.json {
                return print_json(&made);
            }
            let (id, total) = (text(&made["batch"]["id"]), &made["batch"]["total"]);
            let devices = if *total == 1 { "device" } else { "devices" };
            return print(&format!(
                "batch {id}: {} {devices}, as batch {} asked; how it goes: poseidon batch {id}\n",
                text(total),
                text(&batch["id"])
            ));
        }
        if self.json {
            return print_json(&batch);
        }
        let mut out = String::new();
        let mut line = |label: &str, value: String| {
            let _ = writeln!(out, "{:<14}{value}", format!("{label}:"));
        };
        line("Batch", text(&batch["id"]));
        line("Created", ago(&batch["created"]));
        line("What", command(&batch));
        for selector in rows(&batch, "on") {
            line("On", text(selector));
        }
        let names: Vec<_> = rows(&batch, "agents").map(text).collect();
        if !names.is_empty() {
            line("Named", names.join(" "));
        }
        line("Concurrency", text(&batch["concurrency"]));
        for (field, label) in [("canary", "Canary"), ("stopOnFailures", "Stop after")] {
            if batch[field].as_u64().is_some_and(|n| n > 0) {
                line(label, text(&batch[field]));
            }
        }
        line("State", state(&batch));
        out.push('\n');
        let names = shared_names(&batch);
        let members: Vec<Value> = rows(&batch, "members").cloned().collect();
        let rows: Vec<Vec<String>> = members
            .iter()
            .map(|member| {
                vec![
                    name(member, &names),
                    text(&member["job"]),
                    how(member),
                    clean(member["lastLine"].as_str().unwrap_or("")),
                ]
            })
            .collect();
        out.push_str(&table(&["DEVICE", "JOB", "STATE", "LAST LINE"], &rows));
        out.push('\n');
        out.push_str(&summary(&batch, &[], &names));
        print(&out)
    }
}

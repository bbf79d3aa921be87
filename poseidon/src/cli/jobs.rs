//! The commands about jobs that ask once and print the answer.

use super::client::{Client, segment};
use super::commands::{Ended, print, print_json, rows};
use super::tables::{ago, bytes, clean, cut, span, table, text};
use crate::time::now;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Longest cell of a table, in characters; 'poseidon job' shows all of it.
const CELL: usize = 60;

/// Where a job stands.
#[derive(Clone, Copy, ValueEnum)]
enum State {
    /// Waits for its device
    Queued,
    /// On its way to the device
    Sent,
    /// The device has it
    Accepted,
    /// Over
    Ended,
}

#[derive(Args)]
pub(super) struct Jobs {
    /// Only of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only those that stand here
    #[arg(long)]
    state: Option<State>,
    /// At most so many, 1 to 500
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
}

impl Jobs {
    pub(super) async fn run(self, client: &Client) -> Ended {
        let mut path = format!("/jobs?limit={}", self.limit);
        if let Some(agent) = &self.agent {
            let _ = write!(path, "&agent={}", segment(agent));
        }
        if let Some(state) = self.state.and_then(|state| state.to_possible_value()) {
            let _ = write!(path, "&state={}", state.get_name());
        }
        let answer: Value = client.get(&path).await?;
        if self.json {
            return print_json(&answer);
        }
        let rows: Vec<_> = rows(&answer, "jobs")
            .map(|job| {
                vec![
                    text(&job["id"]),
                    text(&job["agent"]),
                    ago(&job["created"]),
                    cut(&outcome(job), CELL),
                    cut(&command(job), CELL),
                ]
            })
            .collect();
        print(&table(
            &["JOB", "AGENT", "CREATED", "STATE", "COMMAND"],
            &rows,
        ))
    }
}

pub(super) async fn cancel(client: &Client, job: &str, grace: Option<f64>) -> Ended {
    let body = grace.map_or_else(|| json!({}), |s| json!({"graceSeconds": s}));
    let path = format!("/jobs/{}/cancel", segment(job));
    let _: Value = client.post(&path, &body).await?;
    print(&format!("asked for the end of job {}\n", clean(job)))
}

pub(super) async fn job(client: &Client, job: &str, json: bool) -> Ended {
    let job: Value = client.get(&format!("/jobs/{}", segment(job))).await?;
    if json {
        return print_json(&job);
    }
    let result = &job["result"];
    let mut out = String::new();
    let _ = writeln!(out, "Job:      {}", text(&job["id"]));
    let _ = writeln!(
        out,
        "Agent:    {}/{}",
        text(&job["agent"]),
        text(&job["instance"])
    );
    let _ = writeln!(out, "Created:  {}", ago(&job["created"]));
    let _ = writeln!(out, "Command:  {}", command(&job));
    let _ = writeln!(out, "State:    {}", outcome(&job));
    if !result.is_null() {
        let _ = writeln!(out, "Took:     {} ms", text(&result["elapsedMs"]));
        let _ = writeln!(
            out,
            "Output:   {} on stdout, {} on stderr",
            bytes(&result["stdoutBytes"]),
            bytes(&result["stderrBytes"])
        );
        if result["message"].is_string() {
            let _ = writeln!(out, "Message:  {}", text(&result["message"]));
        }
        if !result["data"].is_null() {
            let _ = writeln!(out, "Data:     {}", clean(&result["data"].to_string()));
        }
    }
    print(&out)
}

/// Where a job stands, in a few words.
pub(crate) fn outcome(job: &Value) -> String {
    let (result, error) = (&job["result"], &job["error"]);
    if !error.is_null() {
        return format!("{}: {}", text(&error["code"]), text(&error["message"]));
    }
    if result.is_null() {
        return match (job["state"].as_str(), job["expires"].as_f64()) {
            (Some("queued"), Some(at)) if at > now() => {
                format!("queued, expires in {}", span(at - now()))
            }
            _ => text(&job["state"]),
        };
    }
    let how = match (&result["exitCode"], &result["signal"]) {
        (_, Value::Number(signal)) => format!(" (signal {signal})"),
        (Value::Number(code), _) if code.as_i64() != Some(0) => format!(" (exit code {code})"),
        _ => String::new(),
    };
    text(&result["status"]) + &how
}

/// What a job, or a batch, asks for, on one line.
pub(super) fn command(job: &Value) -> String {
    let request = &job["request"];
    let words = |field| rows(request, field).map(text);
    match job["type"].as_str() {
        Some("command") | None if request["shell"].is_string() => text(&request["shell"]),
        Some("command") | None => words("argv").collect::<Vec<_>>().join(" "),
        Some("script") => {
            let script = format!("script {}", text(&request["name"]));
            let all = std::iter::once(script).chain(words("args"));
            all.collect::<Vec<_>>().join(" ")
        }
        Some("engine.command") => format!("engine.command {}", text(&request["command"])),
        Some(kind) => clean(kind),
    }
}

//! Following a batch: lines by device as they come, a line for each end, a summary.

use super::client::{Client, Failure, Lines, segment};
use super::commands::rows;
use super::follow::{Away, Line, Outage, Patience, Position};
use super::many::Many;
use super::printer::{Broken, Printer, exit_code, is_told};
use super::progress;
use super::run::{PARTING, Signal, Signals, cancel_at};
use super::tables::{clean, table, text};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::time::timeout;
use triton::message::payload::Stream;

/// In which order a summary counts.
pub(super) const STATES: [(&str, &str); 8] = [
    ("succeeded", "succeeded"),
    ("failed", "failed"),
    ("timed-out", "timed out"),
    ("offline", "offline"),
    ("cancelled", "cancelled"),
    ("not-started", "not started"),
    ("running", "running"),
    ("waiting", "waiting"),
];

/// Streams the output of a batch; Ctrl-C cancels it, a second one stops waiting.
pub(super) async fn follow(
    client: &Client,
    mut signals: Signals,
    batch: &Value,
    many: &Many,
) -> Result<ExitCode, String> {
    let id = batch["id"]
        .as_str()
        .ok_or("the server's answer has no batch")?;
    let total = batch["total"].as_u64().unwrap_or(0);
    if many.detach {
        if many.json {
            println!("{batch:#}");
        } else {
            println!("{}", clean(id));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let several = total > 1;
    if several && !many.json {
        let down = batch["counts"]["offline"].as_u64().unwrap_or(0);
        let down = match down {
            0 => String::new(),
            down => format!(", {down} of them down"),
        };
        eprintln!("poseidon: batch {}: {total} devices{down}", clean(id));
    }
    let mut follower = Follower {
        client: client.clone(),
        path: format!("/batches/{}/output?follow=true", segment(id)),
        lines: None,
        outage: Outage::new(many.patience, Away::default()),
        jobs: HashMap::new(),
        told: HashSet::new(),
        names: if several {
            names(client, id).await
        } else {
            HashMap::new()
        },
        several,
        json: many.json,
        turn: Arc::default(),
        members: Vec::new(),
    };
    // A task of its own: a signal must not come between a line and its end.
    let mut reading = tokio::spawn(async move {
        let ended = follower.read().await;
        (ended, follower)
    });
    let cancel = || cancel(client.clone(), id.to_owned(), many.patience);
    let mut cancelling = None;
    let (whole, follower) = loop {
        tokio::select! {
            read = &mut reading => match read.map_err(|e| e.to_string())? {
                (Ok(whole), follower) => break (whole, follower),
                (Err(Broken::Lost(e)), _) if e.passes() => {
                    return Err(format!(
                        "{e}; no longer waiting, the batch may still run: 'poseidon batch {}' tells",
                        clean(id)
                    ));
                }
                (Err(e), _) => {
                    // Nobody sees the output any more, as with `| head`: the jobs must not run on unseen.
                    let _ = timeout(PARTING, cancel()).await;
                    return Err(e.into());
                }
            },
            signal = signals.next() => match signal {
                Signal::Interrupt if cancelling.is_some() => {
                    progress::clear();
                    eprintln!(
                        "poseidon: no longer waiting; jobs may still run: 'poseidon batch {}' tells",
                        clean(id)
                    );
                    return Ok(ExitCode::from(130));
                }
                Signal::Interrupt => {
                    progress::clear();
                    eprintln!("poseidon: cancelling the batch; Ctrl-C again stops waiting");
                    cancelling = Some(tokio::spawn(cancel()));
                }
                Signal::End(code) => {
                    let _ = timeout(PARTING, cancel()).await;
                    return Ok(ExitCode::from(code));
                }
            },
        }
    };
    if several && !many.json {
        eprint!("\n{}", summary(&whole, &follower.members, &follower.names));
    }
    Ok(ExitCode::from(follower.code()))
}

/// What to call each device that shares its name with another in the batch.
async fn names(client: &Client, id: &str) -> HashMap<(String, String), String> {
    // Without them a name says all the same which device it is, if not which instance.
    let path = format!("/batches/{}", segment(id));
    let batch: Value = client.get(&path).await.unwrap_or_default();
    shared_names(&batch)
}

/// The same from the members of a batch.
pub(super) fn shared_names(batch: &Value) -> HashMap<(String, String), String> {
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for member in rows(batch, "members") {
        let [agent, instance] =
            ["agent", "instance"].map(|field| member[field].as_str().unwrap_or(""));
        by_name.entry(agent).or_default().push(instance);
    }
    let shared = by_name.into_iter().filter(|(_, all)| all.len() > 1);
    shared
        .flat_map(|(agent, all)| {
            all.into_iter().map(move |instance| {
                let key = (agent.to_owned(), instance.to_owned());
                (key, format!("{}/{}", clean(agent), clean(instance)))
            })
        })
        .collect()
}

/// What to call a member.
pub(super) fn name(member: &Value, shared: &HashMap<(String, String), String>) -> String {
    let field = |name: &str| member[name].as_str().unwrap_or("").to_owned();
    let found = shared.get(&(field("agent"), field("instance")));
    found.cloned().unwrap_or_else(|| text(&member["agent"]))
}

/// Reads a batch's lines, each once, also over a restart of the server.
struct Follower {
    client: Client,
    path: String,
    lines: Option<Lines>,
    outage: Outage,
    /// Jobs of which something came and that have not ended.
    jobs: HashMap<String, (Position, Printer)>,
    /// Members whose end was told.
    told: HashSet<(String, String)>,
    names: HashMap<(String, String), String>,
    several: bool,
    json: bool,
    /// Who holds it writes.
    turn: Arc<Mutex<()>>,
    /// Those that ended.
    members: Vec<Value>,
}

impl Follower {
    /// Prints to the end; returns the batch.
    async fn read(&mut self) -> Result<Value, Broken> {
        loop {
            let failure = match self.line().await {
                Ok(Some(raw)) => match self.take(&raw).await? {
                    Some(batch) => return Ok(batch),
                    None => continue,
                },
                Ok(None) => Failure::broken("the server ended the stream before the batch ended"),
                Err(failure) => failure,
            };
            self.lines = None;
            self.outage.wait(failure).await?;
            self.client = self.client.again();
        }
    }

    async fn line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        if self.lines.is_none() {
            let lines = self.client.try_lines(&self.path).await?;
            for (position, _) in self.jobs.values_mut() {
                position.again();
            }
            self.outage.opened();
            self.lines = Some(lines);
        }
        match &mut self.lines {
            Some(lines) => lines.next().await.map_err(Failure::broken),
            None => Ok(None),
        }
    }

    /// Returns the batch with the last line.
    async fn take(&mut self, raw: &[u8]) -> Result<Option<Value>, Broken> {
        let unreadable = |e| Failure::wrong(format!("the server's answer cannot be read: {e}"));
        let value: Value = serde_json::from_slice(raw).map_err(unreadable)?;
        let field = |name: &str| value[name].as_str().unwrap_or("").to_owned();
        let key = (field("agent"), field("instance"));
        match value["type"].as_str() {
            Some("summary") => {
                if self.json {
                    self.plain(raw).await?;
                }
                return Ok(Some(value["batch"].clone()));
            }
            Some("ended") => self.ended(raw, value, key).await?,
            _ if self.told.contains(&key) => {}
            _ => {
                let job = field("job");
                let line: Line = serde_json::from_value(value.clone()).map_err(unreadable)?;
                if !self.jobs.contains_key(&job) {
                    let printer = self.printer(&value);
                    self.jobs
                        .insert(job.clone(), (Position::default(), printer));
                }
                let Some((position, printer)) = self.jobs.get_mut(&job) else {
                    return Ok(None);
                };
                if let Some(news) = position.take(line)? {
                    self.outage.progress();
                    printer.take(raw, news).await?;
                }
            }
        }
        Ok(None)
    }

    /// For the job of this line.
    fn printer(&self, line: &Value) -> Printer {
        Printer {
            prefix: (self.several && !self.json).then(|| format!("{}: ", name(line, &self.names))),
            json: self.json,
            turn: self.turn.clone(),
            ..Printer::default()
        }
    }

    async fn plain(&self, raw: &[u8]) -> Result<(), Broken> {
        let printer = Printer {
            turn: self.turn.clone(),
            ..Printer::default()
        };
        let line = [raw, b"\n"].concat();
        printer.write(Stream::Stdout, &line).await
    }

    async fn ended(
        &mut self,
        raw: &[u8],
        member: Value,
        key: (String, String),
    ) -> Result<(), Broken> {
        if !self.told.insert(key) {
            return Ok(());
        }
        self.outage.progress();
        let job = member["job"].as_str().unwrap_or("");
        let begun = self.jobs.remove(job).map(|(_, printer)| printer);
        let mut printer = begun.unwrap_or_else(|| self.printer(&member));
        printer.finish().await?;
        if !self.json {
            printer.data(&member["data"]).await?;
        }
        let state = member["state"].as_str().unwrap_or("");
        // Of several each is told, of one what its output does not say.
        let worth_telling = if self.several {
            state != "not-started"
        } else {
            !is_told(state, &member) || member["message"].is_string()
        };
        if self.json {
            self.plain(raw).await?;
        } else if worth_telling {
            let _turn = self.turn.lock().await;
            progress::clear();
            eprintln!("poseidon: {}: {}", name(&member, &self.names), how(&member));
        }
        self.members.push(member);
        Ok(())
    }

    /// One device gives its exit code, several 1 where one of them did not succeed.
    fn code(&self) -> u8 {
        match self.members.as_slice() {
            [one] if !self.several => match one["state"].as_str() {
                None | Some("offline" | "not-started") => 1,
                Some(status) => exit_code(&json!({"result": {
                    "status": status, "exitCode": one["exitCode"], "signal": one["signal"]}})),
            },
            all => u8::from(!all.iter().all(|member| member["state"] == "succeeded")),
        }
    }
}

/// How a member ended, in a few words.
pub(super) fn how(member: &Value) -> String {
    let state = member["state"].as_str().unwrap_or("");
    let words = STATES.iter().find(|(known, _)| *known == state);
    let mut out = words.map_or_else(|| clean(state), |(_, words)| (*words).to_owned());
    match (&member["exitCode"], &member["signal"]) {
        (_, Value::Number(signal)) => {
            let _ = write!(out, " (signal {signal})");
        }
        (Value::Number(code), _) if code.as_i64() != Some(0) => {
            let _ = write!(out, " (exit code {code})");
        }
        _ => {}
    }
    if let Some(ms) = member["elapsedMs"].as_f64() {
        let _ = write!(out, " after {:.1} s", ms / 1000.0);
    }
    if member["message"].is_string() {
        let _ = write!(out, ": {}", text(&member["message"]));
    }
    out
}

/// How many ended how, and what is to be known of those that did not succeed.
pub(super) fn summary(
    batch: &Value,
    members: &[Value],
    names: &HashMap<(String, String), String>,
) -> String {
    let mut counts = Vec::new();
    for (state, words) in STATES {
        match batch["counts"][state].as_u64() {
            Some(n) if n > 0 => counts.push(vec![words.to_uppercase(), n.to_string()]),
            _ => {}
        }
    }
    let total = text(&batch["total"]);
    let mut out = table(&["DEVICES", &total], &counts);
    match batch["stopped"].as_str() {
        Some("canary") => out.push_str("\nStopped: one of the first did not succeed.\n"),
        Some("failures") => out.push_str("\nStopped: too many failed.\n"),
        Some("cancelled") => out.push_str("\nStopped: it was cancelled.\n"),
        _ => {}
    }
    let mut bad: Vec<&Value> = members
        .iter()
        .filter(|member| !matches!(member["state"].as_str(), Some("succeeded" | "not-started")))
        .collect();
    bad.sort_by_key(|member| name(member, names));
    if bad.is_empty() {
        return out;
    }
    let rows: Vec<Vec<String>> = bad
        .iter()
        .map(|member| {
            let state = member["state"].as_str().unwrap_or("");
            let words = STATES.iter().find(|(known, _)| *known == state);
            let code = match (&member["exitCode"], &member["signal"]) {
                (_, Value::Number(signal)) => format!("signal {signal}"),
                (code, _) => text(code),
            };
            let last = match &member["message"] {
                Value::String(message) => message,
                _ => member["lastLine"].as_str().unwrap_or(""),
            };
            vec![
                name(member, names),
                words.map_or_else(|| clean(state), |(_, words)| (*words).to_owned()),
                code,
                clean(last),
            ]
        })
        .collect();
    out.push('\n');
    out.push_str(&table(
        &["DEVICE", "STATE", "EXIT CODE", "LAST LINE"],
        &rows,
    ));
    out
}

/// Starts no more and cancels what runs. Where all of it is over there is nothing to cancel.
async fn cancel(client: Client, id: String, patience: Patience) {
    let path = format!("/batches/{}/cancel", segment(&id));
    cancel_at(client, path, Outage::new(patience, Away::default())).await;
}

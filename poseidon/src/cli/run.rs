//! `poseidon run` and `poseidon output`: output as it comes, and an end with the job's exit code.

use super::client::{Client, Lines, segment};
use super::commands::{outcome, pair};
use super::tables::{bytes, clean, text};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, stderr, stdout};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use triton::message::payload::Stream;
use triton::message::text::{Data, Encoding, encode};

/// Longest standard input: it travels inside the request.
const STDIN_LIMIT: u64 = 512 << 10;
/// A line of a device among others is cut here, so that memory stays bounded.
const LINE_LIMIT: usize = 64 << 10;
/// How long the cancels may take where nobody waits for the jobs any more.
const PARTING: Duration = Duration::from_secs(5);
/// Exit code where a job has none of its own.
const NO_CODE: u8 = 255;

/// Runs a command on agents.
#[derive(Args)]
// Each is a flag of the command line, on or off by itself.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Run {
    /// NAME or NAME/INSTANCE of each agent
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Kill it after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// Run as this user
    #[arg(long)]
    user: Option<String>,
    /// Run as this group
    #[arg(long)]
    group: Option<String>,
    /// Run in this folder
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Add to the environment; can be repeated
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Give the command to `/bin/sh -c` as one text
    #[arg(long)]
    shell: bool,
    /// Hand standard input to it, up to 512 KiB
    #[arg(long)]
    stdin: bool,
    /// Print the API's JSON lines instead of the output
    #[arg(long)]
    json: bool,
    /// Print the jobs' IDs and do not wait
    #[arg(long)]
    detach: bool,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Output {
        stream: Stream,
        data: String,
        encoding: Encoding,
    },
    Gap {
        stream: Stream,
        offset: u64,
        length: u64,
    },
    End {
        job: Value,
    },
    #[serde(other)]
    Other,
}

impl Run {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        // First of all, so that a signal from now on cancels what it finds started.
        let mut signals = Signals::new()?;
        let body = json!({"agents": self.names, "command": self.payload()?});
        let answer: Value = tokio::select! {
            answer = client.post("/jobs", &body) => answer?,
            _ = signals.next() => {
                eprintln!("poseidon: interrupted; whether the job was started, 'poseidon jobs' tells");
                return Ok(ExitCode::from(130));
            }
        };
        let jobs: Vec<Value> = answer["jobs"].as_array().cloned().unwrap_or_default();
        let ids: Vec<String> = jobs
            .iter()
            .filter_map(|job| job["id"].as_str().map(str::to_owned))
            .collect();
        if self.detach {
            if self.json {
                println!("{answer:#}");
            } else {
                for id in &ids {
                    println!("{}", clean(id));
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        follow(client, signals, &jobs, &ids, self.json).await
    }

    fn payload(&self) -> Result<Value, String> {
        let mut command = serde_json::Map::new();
        if self.shell {
            command.insert("shell".to_owned(), self.command.join(" ").into());
        } else {
            command.insert("argv".to_owned(), self.command.clone().into());
        }
        for (field, value) in [
            ("user", &self.user),
            ("group", &self.group),
            ("cwd", &self.cwd),
        ] {
            if let Some(value) = value {
                command.insert(field.to_owned(), value.clone().into());
            }
        }
        if let Some(seconds) = self.timeout {
            command.insert("timeoutSeconds".to_owned(), json!(seconds));
        }
        if !self.env.is_empty() {
            let env: BTreeMap<_, _> = self.env.iter().cloned().collect();
            command.insert("env".to_owned(), json!(env));
        }
        if self.stdin {
            let mut input = Vec::new();
            std::io::stdin()
                .take(STDIN_LIMIT + 1)
                .read_to_end(&mut input)
                .map_err(|e| format!("cannot read standard input: {e}"))?;
            if input.len() as u64 > STDIN_LIMIT {
                return Err(format!(
                    "standard input has more than the {STDIN_LIMIT} bytes that fit into a request"
                ));
            }
            command.insert("stdin".to_owned(), encode(&input).into());
        }
        Ok(command.into())
    }
}

/// Streams the output of all jobs; Ctrl-C cancels them, a second one stops waiting.
async fn follow(
    client: &Client,
    mut signals: Signals,
    jobs: &[Value],
    ids: &[String],
    json: bool,
) -> Result<ExitCode, String> {
    let several = jobs.len() > 1;
    let names: Vec<String> = jobs
        .iter()
        .map(|job| {
            let same = jobs
                .iter()
                .filter(|other| other["agent"] == job["agent"])
                .count()
                > 1;
            if same {
                format!("{}/{}", text(&job["agent"]), text(&job["instance"]))
            } else {
                text(&job["agent"])
            }
        })
        .collect();
    let out = Arc::new(Mutex::new(()));
    let mut readers = JoinSet::new();
    for (id, name) in ids.iter().zip(&names) {
        let lines = client
            .lines(&format!("/jobs/{}/output?follow=true", segment(id)))
            .await?;
        let printer = Printer {
            job: several.then(|| id.clone()),
            prefix: (several && !json).then(|| format!("{name}: ")),
            json,
            partial: [Vec::new(), Vec::new()],
            turn: out.clone(),
        };
        readers.spawn(printer.print(lines, name.clone()));
    }
    let mut cancelling = None;
    let mut worst = 0;
    loop {
        tokio::select! {
            ended = readers.join_next() => match ended {
                Some(Ok(Ok(code))) if several => worst = worst.max(u8::from(code != 0)),
                Some(Ok(Ok(code))) => worst = code,
                Some(Ok(Err(e))) => {
                    // Nobody sees the output any more, as with `| head`: the jobs must not run on unseen.
                    let _ = timeout(PARTING, cancel(client.clone(), ids.to_vec())).await;
                    return Err(e);
                }
                Some(Err(e)) => return Err(e.to_string()),
                None => return Ok(ExitCode::from(worst)),
            },
            signal = signals.next() => match signal {
                Signal::Interrupt if cancelling.is_some() => {
                    eprintln!("poseidon: no longer waiting; the job may still run");
                    return Ok(ExitCode::from(130));
                }
                Signal::Interrupt => {
                    eprintln!("poseidon: cancelling; Ctrl-C again stops waiting");
                    cancelling = Some(tokio::spawn(cancel(client.clone(), ids.to_vec())));
                }
                Signal::End(code) => {
                    let _ = timeout(PARTING, cancel(client.clone(), ids.to_vec())).await;
                    return Ok(ExitCode::from(code));
                }
            },
        }
    }
}

/// Cancels all of them at once. Where one has ended by itself there is nothing to cancel.
async fn cancel(client: Client, ids: Vec<String>) {
    let each = ids.iter().map(|id| {
        let path = format!("/jobs/{}/cancel", segment(id));
        let client = &client;
        async move {
            if let Err(e) = client.post::<Value>(&path, &json!({})).await {
                eprintln!("poseidon: {e}");
            }
        }
    });
    futures_util::future::join_all(each).await;
}

/// What ends waiting for jobs.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// The terminal or the session ends; the exit code for it.
    End(u8),
}

impl Signals {
    fn new() -> Result<Self, String> {
        let on = |kind| signal(kind).map_err(|e| format!("cannot wait for signals: {e}"));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::End(128 + 15),
            _ = self.hang_up.recv() => Signal::End(128 + 1),
        }
    }
}

/// `poseidon output`.
pub(super) async fn output(
    client: &Client,
    job: &str,
    follow: bool,
    json: bool,
) -> Result<ExitCode, String> {
    let lines = client
        .lines(&format!("/jobs/{}/output?follow={follow}", segment(job)))
        .await?;
    let printer = Printer {
        job: None,
        prefix: None,
        json,
        partial: [Vec::new(), Vec::new()],
        turn: Arc::default(),
    };
    match printer.copy(lines).await? {
        Some(job) if follow => Ok(ExitCode::from(exit_code(&job))),
        None if follow => Err("the server ended the stream before the job ended".to_owned()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

struct Printer {
    /// Told in each line of JSON, where several devices share the output.
    job: Option<String>,
    /// Before each line, where several devices share the terminal.
    prefix: Option<String>,
    json: bool,
    /// The beginning of a line that has not ended, of each stream.
    partial: [Vec<u8>; 2],
    /// Who holds it writes.
    turn: Arc<Mutex<()>>,
}

impl Printer {
    /// Prints to the end; returns the exit code.
    async fn print(self, lines: Lines, name: String) -> Result<u8, String> {
        let json = self.json;
        let Some(job) = self.copy(lines).await? else {
            return Err(format!(
                "{name}: the server ended the stream before the job ended"
            ));
        };
        let plain_end = matches!(
            job["result"]["status"].as_str(),
            Some("succeeded" | "failed")
        );
        if !plain_end && !json {
            eprintln!("poseidon: {name}: {}", outcome(&job));
            if job["result"]["message"].is_string() {
                eprintln!("poseidon: {name}: {}", text(&job["result"]["message"]));
            }
        }
        Ok(exit_code(&job))
    }

    /// Prints what comes; returns the job if it ended.
    async fn copy(mut self, mut lines: Lines) -> Result<Option<Value>, String> {
        let mut end = None;
        while let Some(line) = lines.next().await? {
            let parsed: Line = serde_json::from_slice(&line)
                .map_err(|e| format!("the server's answer cannot be read: {e}"))?;
            if self.json {
                let mut value: Value = serde_json::from_slice(&line).unwrap_or_default();
                if let (Some(fields), Some(job)) = (value.as_object_mut(), &self.job) {
                    fields.insert("jobId".to_owned(), job.clone().into());
                }
                write(Stream::Stdout, format!("{value}\n").as_bytes()).await?;
            }
            match parsed {
                Line::End { job } => end = Some(job),
                _ if self.json => {}
                Line::Output {
                    stream,
                    data,
                    encoding,
                } => {
                    let bytes = Data { data, encoding }
                        .into_bytes()
                        .ok_or("the server sends wrong base64")?;
                    self.bytes(stream, &bytes).await?;
                }
                Line::Gap {
                    stream,
                    offset,
                    length,
                } => {
                    let name = match stream {
                        Stream::Stdout => "stdout",
                        Stream::Stderr => "stderr",
                    };
                    let prefix = self.prefix.as_deref().unwrap_or("");
                    eprintln!(
                        "poseidon: {prefix}{} of {name} are missing from byte {offset} on",
                        bytes(&json!(length))
                    );
                }
                Line::Other => {}
            }
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.partial[stream as usize].is_empty() {
                self.bytes(stream, b"\n").await?;
            }
        }
        Ok(end)
    }

    async fn bytes(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), String> {
        let Some(prefix) = &self.prefix else {
            return write(stream, bytes).await;
        };
        let partial = &mut self.partial[stream as usize];
        let mut whole = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            partial.extend_from_slice(piece);
            if partial.ends_with(b"\n") || partial.len() > LINE_LIMIT {
                whole.extend_from_slice(prefix.as_bytes());
                whole.append(partial);
                if !whole.ends_with(b"\n") {
                    whole.push(b'\n');
                }
            }
        }
        let turn = self.turn.lock().await;
        let written = write(stream, &whole).await;
        drop(turn);
        written
    }
}

async fn write(stream: Stream, bytes: &[u8]) -> Result<(), String> {
    let written = async {
        match stream {
            Stream::Stdout => {
                let mut out = stdout();
                out.write_all(bytes).await?;
                out.flush().await
            }
            Stream::Stderr => {
                let mut out = stderr();
                out.write_all(bytes).await?;
                out.flush().await
            }
        }
    };
    written
        .await
        .map_err(|e: std::io::Error| format!("cannot write the output: {e}"))
}

/// As a shell has it: the exit code, 128 and the signal, else 255.
fn exit_code(job: &Value) -> u8 {
    let result = &job["result"];
    if let Some(signal) = result["signal"].as_u64() {
        return u8::try_from(128 + signal.min(127)).unwrap_or(NO_CODE);
    }
    match (result["status"].as_str(), result["exitCode"].as_i64()) {
        (_, Some(code)) if code != 0 => u8::try_from(code).unwrap_or(NO_CODE),
        (Some("succeeded"), _) => 0,
        _ => NO_CODE,
    }
}

//! `poseidon run` and `poseidon output`: output as it comes, and an end with the job's exit code.

use super::batch;
use super::client::{Client, Failure, segment};
use super::follow::{Away, Follower, Outage, Patience};
use super::how::How;
use super::many::Many;
use super::once::Once;
use super::place::devices;
use super::printer::{Broken, Printer, exit_code};
use super::progress;
use super::tables::{clean, span, text};
use crate::time::now;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long the cancels may take where nobody waits for the jobs any more.
pub(super) const PARTING: Duration = Duration::from_secs(5);

/// For the help of `run`.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  that of the command, or 128 and the signal that ended it
  124  it ran out of time
  125  it has no end of its own: lost, interrupted, expired, forgotten
  126  it could not be started, or the device refused it
  127  there is no such program, user or folder
  130  it was cancelled
  1    Poseidon was not reached or said no
  With several devices: 0 where all succeeded, else 1";

/// Runs a command on agents.
#[derive(Args)]
pub(super) struct Run {
    /// NAME or NAME/INSTANCE of each agent
    #[arg(required_unless_present = "on", value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    how: How,
    /// Give the command to `/bin/sh -c` as one text
    #[arg(long)]
    shell: bool,
    #[command(flatten)]
    many: Many,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Run {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        let mut command = if self.shell {
            json!({"shell": self.command.join(" ")})
        } else {
            json!({"argv": self.command})
        };
        self.how.add_to(&mut command)?;
        start(client, &self.many, &self.names, json!({"command": command})).await
    }
}

/// Asks agents for `what`, follows it and ends as it does.
pub(super) async fn start(
    client: &Client,
    many: &Many,
    names: &[String],
    what: Value,
) -> Result<ExitCode, String> {
    // First of all, so that a signal from now on cancels what it finds started.
    let mut signals = Signals::new()?;
    let one = many.is_one(names);
    let body = many.body(names, what);
    let request = if one {
        Once::jobs(body)
    } else {
        Once::batch(body)
    };
    let stop = async || signals.next().await.code();
    let answer = request.send_until(client, many.patience, stop).await;
    match answer.map_err(|e| not_started(&e, one && !many.queue))? {
        Ok(answer) if one => follow_jobs(client, signals, answer, many).await,
        Ok(answer) => batch::follow(client, signals, &answer["batch"], many).await,
        Err(code) => Ok(code),
    }
}

async fn follow_jobs(
    client: &Client,
    signals: Signals,
    answer: Value,
    many: &Many,
) -> Result<ExitCode, String> {
    let jobs: Vec<Value> = answer["jobs"].as_array().cloned().unwrap_or_default();
    let ids: Vec<String> = jobs
        .iter()
        .filter_map(|job| job["id"].as_str().map(str::to_owned))
        .collect();
    for job in jobs.iter().filter(|job| job["state"] == "queued") {
        eprintln!("poseidon: {}", waits(job));
    }
    if many.detach {
        if many.json {
            println!("{answer:#}");
        } else {
            for id in &ids {
                println!("{}", clean(id));
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    follow(client, signals, &jobs, &ids, many).await
}

/// What to say where nothing was started, to whom a job that waits may be of use.
pub(super) fn not_started(failure: &Failure, may_queue: bool) -> String {
    if may_queue && failure.is_offline() {
        format!("{failure}; with --queue the job waits for them")
    } else {
        failure.to_string()
    }
}

/// What a queued job waits for, and for how long.
fn waits(job: &Value) -> String {
    let until = job["expires"].as_f64().map_or(String::new(), |at| {
        format!(" until {} ({})", triton::dates::utc(at), span(at - now()))
    });
    format!("{} is down: the job waits{until}", text(&job["agent"]))
}

/// Streams the output of all jobs; Ctrl-C cancels them, a second one stops waiting.
async fn follow(
    client: &Client,
    mut signals: Signals,
    jobs: &[Value],
    ids: &[String],
    run: &Many,
) -> Result<ExitCode, String> {
    let several = jobs.len() > 1;
    let names = devices(jobs);
    let (out, away) = (Arc::new(Mutex::new(())), Away::default());
    let mut readers = JoinSet::new();
    for (id, name) in ids.iter().zip(&names) {
        let printer = Printer {
            job: several.then(|| id.clone()),
            prefix: (several && !run.json).then(|| format!("{name}: ")),
            json: run.json,
            turn: out.clone(),
            ..Printer::default()
        };
        let outage = Outage::new(run.patience, away.clone());
        let (client, id, name) = (client.clone(), id.clone(), name.clone());
        readers.spawn(async move {
            let follower = Follower::to_the_end(&client, &id, outage, true).await?;
            printer.print(follower, name).await
        });
    }
    let cancel = || cancel(client.clone(), ids.to_vec(), run.patience);
    let mut cancelling = None;
    let mut worst = 0;
    loop {
        tokio::select! {
            ended = readers.join_next() => match ended {
                Some(Ok(Ok(code))) if several => worst = worst.max(u8::from(code != 0)),
                Some(Ok(Ok(code))) => worst = code,
                // No server is there to cancel them either.
                Some(Ok(Err(Broken::Lost(e)))) if e.passes() => return Err(lost(&e, ids)),
                Some(Ok(Err(e))) => {
                    // Nobody sees the output any more, as with `| head`: the jobs must not run on unseen.
                    let _ = timeout(PARTING, cancel()).await;
                    return Err(e.into());
                }
                Some(Err(e)) => return Err(e.to_string()),
                None => return Ok(ExitCode::from(worst)),
            },
            signal = signals.next() => match signal {
                Signal::Interrupt if cancelling.is_some() => {
                    progress::clear();
                    eprintln!("poseidon: no longer waiting; the job may still run");
                    return Ok(ExitCode::from(130));
                }
                Signal::Interrupt => {
                    progress::clear();
                    eprintln!("poseidon: cancelling; Ctrl-C again stops waiting");
                    cancelling = Some(tokio::spawn(cancel()));
                }
                Signal::End(code) => {
                    let _ = timeout(PARTING, cancel()).await;
                    return Ok(ExitCode::from(code));
                }
            },
        }
    }
}

/// What to say where the server stayed away.
fn lost(failure: &Failure, ids: &[String]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| clean(id)).collect();
    format!(
        "{failure}; no longer waiting, the job may still run: 'poseidon output --follow' tells ({})",
        ids.join(", ")
    )
}

/// Cancels all of them at once. Where one has ended by itself there is nothing to cancel.
async fn cancel(client: Client, ids: Vec<String>, patience: Patience) {
    let away = Away::default();
    let each = ids.iter().map(|id| {
        let path = format!("/jobs/{}/cancel", segment(id));
        cancel_at(client.clone(), path, Outage::new(patience, away.clone()))
    });
    futures_util::future::join_all(each).await;
}

/// Posts a cancel to `path`; says what becomes of it where it fails.
pub(super) async fn cancel_at(mut client: Client, path: String, mut outage: Outage) {
    while let Err(failure) = client.try_post::<Value>(&path, &json!({})).await {
        // A second cancel kills at once: only one that never arrived is sent again.
        let waited = if failure.never_sent() {
            outage.wait(failure).await
        } else {
            Err(failure)
        };
        if let Err(failure) = waited {
            eprintln!("poseidon: {failure}");
            break;
        }
        client = client.again();
    }
}

/// What ends waiting for jobs.
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

pub(super) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// The terminal or the session ends; the exit code for it.
    End(u8),
}

impl Signal {
    /// The exit code for it.
    fn code(self) -> u8 {
        match self {
            Self::Interrupt => 128 + 2,
            Self::End(code) => code,
        }
    }
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

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::End(128 + 15),
            _ = self.hang_up.recv() => Signal::End(128 + 1),
        }
    }
}

#[derive(Args)]
pub(super) struct Output {
    /// The job's ID
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    job: String,
    /// Go on until the job ends
    #[arg(long, short)]
    follow: bool,
    /// Print the API's JSON lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    patience: Patience,
}

impl Output {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        let follower = if self.follow {
            let outage = Outage::new(self.patience, Away::default());
            Follower::to_the_end(client, &self.job, outage, false).await
        } else {
            Follower::stored(client, &self.job).await
        };
        let printer = Printer {
            json: self.json,
            ..Printer::default()
        };
        match printer.copy(follower?).await {
            Ok(Some(job)) if self.follow => Ok(ExitCode::from(exit_code(&job))),
            Ok(_) => Ok(ExitCode::SUCCESS),
            Err(e) => Err(e.into()),
        }
    }
}

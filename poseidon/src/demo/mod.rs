//! `poseidon demo`: a server, a real agent, and what the two do together, told as it happens.

mod agent;

use crate::cli::client::{Client, segment};
use crate::cli::{describe, outcome};
use crate::server::{self, Settings};
use agent::Agent;
pub(crate) use agent::Become;
use clap::Args;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};
use triton::message::text::Data;

/// The agent is to show up in the pending list within this time.
const KNOCK: Duration = Duration::from_secs(20);
/// It is to get in, even if it only comes back after its back-off of 30 s.
const ARRIVE: Duration = Duration::from_mins(1);
/// Its health is to arrive.
const HEALTH: Duration = Duration::from_secs(15);
/// The command is to end.
const COMMAND: Duration = Duration::from_secs(30);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);
/// How often an agent that waits is told to retry at once.
const NUDGE: Duration = Duration::from_secs(3);

/// No quotes of its own: it is shown between some.
const SCRIPT: &str = "uname -srm; for i in 1 2 3; do echo step $i of 3; sleep 0.4; done; echo this is stderr >&2; date";

/// Options of the demo.
#[derive(Args)]
pub struct Demo {
    /// End after the story
    #[arg(long)]
    exit: bool,
    /// The agent's binary; without it, the one beside this one, or built by cargo, or in the PATH
    #[arg(long, value_name = "FILE")]
    triton: Option<PathBuf>,
}

impl Demo {
    pub(crate) async fn run(self) -> Result<ExitCode, String> {
        let broken = |e| format!("cannot wait for signals: {e}");
        let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
        // The terminal is closed: the agent must not stay behind.
        let mut hang_up = signal(SignalKind::hangup()).map_err(broken)?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hang_up.recv() => {}
            }
        };
        tokio::pin!(stop);
        let triton = tokio::select! {
            found = agent::find(self.triton) => found.map_err(|e| failed("find triton", &e))?,
            () = &mut stop => return Ok(ExitCode::from(130)),
        };
        let dir = tempfile::Builder::new()
            .prefix("poseidon-demo-")
            .tempdir()
            .map_err(|e| failed("make a temporary folder", &e.to_string()))?;
        let server = server::start(Settings {
            listen: "127.0.0.1:0".to_owned(),
            heartbeat_seconds: 2,
            ..Settings::new(dir.path().join("poseidon"))
        })
        .await
        .map_err(|e| failed("start Poseidon", &e))?;
        let token = server.data.admin_token()?;
        let mut agent = Agent::new(triton, dir.path().join("triton"));
        let ended = tokio::select! {
            told = story(&server.url, &token, &mut agent) => match told {
                Ok(()) if self.exit => Ok(ExitCode::SUCCESS),
                Ok(()) => {
                    tell("Ctrl-C ends the demo.");
                    stop.await;
                    Ok(ExitCode::SUCCESS)
                }
                Err(e) => Err(e + &agent.log_tail()),
            },
            () = &mut stop => Ok(ExitCode::from(130)),
        };
        agent.stop().await;
        server.stop().await;
        drop(dir);
        if ended.is_ok() {
            tell("Agent and Poseidon have ended, the temporary folder is gone.");
        }
        ended
    }
}

fn failed(step: &str, reason: &str) -> String {
    format!("the demo failed at the step \"{step}\": {reason}")
}

/// A reader that has gone does not stop the story.
fn tell(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

async fn story(url: &str, token: &str, agent: &mut Agent) -> Result<(), String> {
    let client = Client::new(url, token.to_owned(), None)?;
    tell(&format!("1. Poseidon listens on {url}."));

    let step = "start the agent";
    let identifier = agent.identifier().await.map_err(|e| failed(step, &e))?;
    let hash = crate::agents::hash(&identifier);
    let id = crate::agents::fingerprint(&hash);
    agent.start(url).map_err(|e| failed(step, &e))?;
    tell(&format!(
        "2. An agent runs: {}. Nobody knows its identifier yet.",
        agent.command_line(url)
    ));

    let step = "the agent shows up as pending";
    wait(step, KNOCK, agent, async || {
        let answer: Value = client.get("/pending").await?;
        let pending = answer["pending"].as_array();
        Ok(pending
            .into_iter()
            .flatten()
            .any(|p| p["id"] == id)
            .then_some(()))
    })
    .await?;
    tell(&format!(
        "3. It was turned away and is pending: {id} (poseidon pending)."
    ));

    let step = "approve the agent";
    let path = format!("/pending/{}/approve", segment(id));
    client
        .post::<Value>(&path, &json!({"name": "demo"}))
        .await
        .map_err(|e| failed(step, &e))?;
    tell(&format!(
        "4. It is approved (poseidon approve {id} --name demo)."
    ));

    let step = "the agent gets in";
    let mut nudged: Option<Instant> = None;
    let pid = agent.pid();
    wait(step, ARRIVE, agent, async || {
        if let Ok(shown) = client.get::<Value>("/agents/demo").await
            && shown["state"] == "up"
        {
            return Ok(Some(()));
        }
        // It would come back by itself, but only after its back-off.
        if nudged.is_none_or(|at| at.elapsed() > NUDGE) {
            nudged = Some(Instant::now());
            agent::hang_up(pid);
        }
        Ok(None)
    })
    .await?;
    tell("5. It is in. This is its health (poseidon show demo):");

    let step = "the agent's health arrives";
    let shown = wait(step, HEALTH, agent, async || {
        let shown: Value = client.get("/agents/demo").await?;
        Ok(shown["health"].is_object().then_some(shown))
    })
    .await?;
    for line in describe(&shown).lines() {
        tell(&format!("   | {line}"));
    }

    let step = "run a command";
    tell(&format!(
        "6. A command runs on it (poseidon run demo --shell -- '{SCRIPT}'):"
    ));
    timeout(COMMAND, command(&client))
        .await
        .unwrap_or_else(|_| Err(format!("it has not ended after {} s", COMMAND.as_secs())))
        .map_err(|e| failed(step, &e))?;
    offline(&client, url, agent).await?;
    tell(&format!(
        "8. The page, with the token in it: {url}/#token={token}"
    ));
    Ok(())
}

/// Looks again and again until there is something, the agent is dead or the time is over.
async fn wait<T>(
    step: &str,
    limit: Duration,
    agent: &mut Agent,
    mut look: impl AsyncFnMut() -> Result<Option<T>, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await.map_err(|e| failed(step, &e))? {
            return Ok(found);
        }
        if let Some(how) = agent.ended() {
            return Err(failed(step, &format!("the agent has ended: {how}")));
        }
        if Instant::now() > deadline {
            return Err(failed(step, &format!("not within {} s", limit.as_secs())));
        }
        sleep(LOOK).await;
    }
}

/// A command for an agent that is away.
async fn offline(client: &Client, url: &str, agent: &mut Agent) -> Result<(), String> {
    let step = "queue a command";
    agent.stop().await;
    // Its end is told by the connection's end, which comes a moment later.
    let deadline = Instant::now() + HEALTH;
    while client.get::<Value>("/agents/demo").await?["state"] != "down" {
        if Instant::now() > deadline {
            return Err(failed(
                step,
                "Poseidon does not notice that the agent has gone",
            ));
        }
        sleep(LOOK).await;
    }
    let ledger = agent.file("ledger");
    let command = format!("echo it ran >> '{}'", ledger.display());
    let body = json!({"agents": ["demo"], "command": {"shell": command}, "queue": true, "expiresSeconds": 3600});
    let answer: Value = client
        .post("/jobs", &body)
        .await
        .map_err(|e| failed(step, &e))?;
    let job = &answer["jobs"][0];
    if job["state"] != "queued" {
        return Err(failed(step, &format!("it is {}", outcome(job))));
    }
    tell("7. The agent is stopped, and a command waits for it (poseidon run demo --queue -- ...).");
    let step = "the queued command runs once";
    agent.start(url).map_err(|e| failed(step, &e))?;
    let path = format!("/jobs/{}", segment(job["id"].as_str().unwrap_or("")));
    let job = wait(step, ARRIVE, agent, async || {
        let job: Value = client.get(&path).await?;
        Ok((job["state"] == "ended").then_some(job))
    })
    .await?;
    let ran = std::fs::read_to_string(&ledger).unwrap_or_default();
    if job["result"]["status"] != "succeeded" || ran.lines().count() != 1 {
        let times = ran.lines().count();
        return Err(failed(
            step,
            &format!("{}; it ran {times} times", outcome(&job)),
        ));
    }
    tell("   The agent is back: the command ran, once.");
    Ok(())
}

async fn command(client: &Client) -> Result<(), String> {
    let body = json!({"agents": ["demo"], "command": {"shell": SCRIPT}});
    let answer: Value = client.post("/jobs", &body).await?;
    let id = answer["jobs"][0]["id"].as_str().unwrap_or("");
    let path = format!("/jobs/{}/output?follow=true", segment(id));
    let mut lines = client.lines(&path).await?;
    let mut end = None;
    let mut partial = Vec::new();
    while let Some(line) = lines.next().await? {
        let line: Value = serde_json::from_slice(&line).map_err(|e| e.to_string())?;
        if line["type"] == "end" {
            end = Some(line["job"].clone());
        }
        if let Ok(data) = serde_json::from_value::<Data>(line) {
            partial.extend(data.into_bytes().unwrap_or_default());
        }
        let whole = partial
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        for text in String::from_utf8_lossy(&partial[..whole]).lines() {
            tell(&format!("   | {}", crate::cli::clean(text)));
        }
        partial.drain(..whole);
    }
    let job = end.ok_or("its output ended before the job did")?;
    tell(&format!("   It has {}.", outcome(&job)));
    match job["result"]["status"].as_str() {
        Some("succeeded") => Ok(()),
        _ => Err(format!(
            "the job ended otherwise than it should: {}",
            outcome(&job)
        )),
    }
}

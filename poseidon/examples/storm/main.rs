//! `storm [AGENTS] [SECONDS]`: so many simulated agents at a real Poseidon, which is killed and started again after so
//! many seconds. All must come back in, none may be turned away by a server that is up, and nothing may be forgotten.
//! `bench/storm.sh` builds and runs it.

mod agent;
mod server;

use agent::{Agent, Fleet};
use server::Server;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long all of them may take. Their longest pause between two attempts is five minutes.
const PATIENCE: Duration = Duration::from_mins(6);
/// Registrations at a time.
const REGISTRARS: usize = 16;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("storm: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| match arguments.next() {
        None => Ok(default),
        Some(text) => text
            .parse::<u32>()
            .map_err(|_| format!("{text}: expected a whole number")),
    };
    let (count, down) = (number(2000)?, number(10)?);
    let most = server::raise_descriptor_limit();
    if most < u64::from(count) + 100 {
        return Err(format!(
            "{count} agents need as many descriptors, {most} are allowed: raise ulimit -Hn"
        ));
    }
    let mut server = Server::start().await?;
    register(&server, count).await?;
    let fleet = Arc::new(Fleet::new(server.address()));
    fleet.server_is_up();
    for n in 0..count {
        tokio::spawn(Agent::new(n).live(fleet.clone()));
    }
    all_in(&fleet, count, "at first").await?;
    let before = server.usage();
    println!("{count} agents are in; Poseidon: {before}");

    fleet.server_goes_down();
    server.kill().await;
    fleet.server_is_down();
    sleep(Duration::from_secs(u64::from(down))).await;
    server.restart().await?;
    fleet.server_is_up();
    let begun = Instant::now();
    all_in(&fleet, count, "again").await?;
    let (arrivals, waits) = fleet.arrivals(begun);
    let after = server.usage();
    println!("Poseidon was down for {down} s; all {count} are in again");
    println!("  arrivals after its start: {}", quantiles(&arrivals));
    println!("  at most {} of them within one second", busiest(&arrivals));
    println!(
        "  from an attempt to the stored record: {}",
        quantiles(&waits)
    );
    println!("  Poseidon until then: {after}");
    fleet.verdict()
}

async fn register(server: &Server, count: u32) -> Result<(), String> {
    let (client, mut tasks) = (server.client()?, tokio::task::JoinSet::new());
    for n in 0..count {
        let client = client.clone();
        tasks.spawn(async move {
            let body = serde_json::json!({
                "identifier": agent::identifier(n), "name": format!("agent-{n}")
            });
            client
                .post::<serde_json::Value>("/identifiers", &body)
                .await
        });
        if tasks.len() >= REGISTRARS {
            finished(tasks.join_next().await)?;
        }
    }
    while let Some(done) = tasks.join_next().await {
        finished(Some(done))?;
    }
    Ok(())
}

type Joined = Result<Result<serde_json::Value, String>, tokio::task::JoinError>;

fn finished(done: Option<Joined>) -> Result<(), String> {
    match done {
        Some(Ok(Err(e))) => Err(e),
        Some(Err(e)) => Err(e.to_string()),
        _ => Ok(()),
    }
}

async fn all_in(fleet: &Fleet, count: u32, when: &str) -> Result<(), String> {
    let begun = Instant::now();
    while fleet.inside() < count as usize {
        if begun.elapsed() > PATIENCE {
            let missing = count as usize - fleet.inside();
            return Err(format!("{missing} agents do not come in {when}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn quantiles(seconds: &[f64]) -> String {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |part: usize| sorted[(sorted.len() - 1) * part / 100];
    format!(
        "first {:.2} s, half {:.2} s, 95 % {:.2} s, last {:.2} s",
        at(0),
        at(50),
        at(95),
        at(100)
    )
}

/// The most arrivals within any second.
fn busiest(seconds: &[f64]) -> usize {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let within =
        |(n, first): (usize, &f64)| sorted[n..].iter().take_while(|t| **t < first + 1.0).count();
    sorted.iter().enumerate().map(within).max().unwrap_or(0)
}

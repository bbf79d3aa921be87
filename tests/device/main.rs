//! How the agent behaves on a small device: flash, memory, file systems, clock, network, processor, log.
//!
//! Most of it needs root and namespaces; where they are missing a test says that it is skipped, and with
//! `TRITON_REQUIRE_NAMESPACES` it fails.

#[cfg(any(feature = "tls", feature = "rustls"))]
mod clock;
mod cpu;
mod flash;
mod log;
mod memory;
mod network;
mod root;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::agent::Agent;
use support::eventually;
use support::place::Place;
use support::poseidon::Poseidon;
use support::rig::FAST;

/// What a test cannot do on this machine: a failure where the machine must be able to.
fn skip(why: &str) {
    assert!(
        std::env::var_os("TRITON_REQUIRE_NAMESPACES").is_none(),
        "not possible here: {why}"
    );
    println!("skipped: {why}");
}

/// A view of the file system of its own, which a shell script has prepared.
fn mounted(script: &str) -> Place {
    let script = format!("set -e; {script}; exec \"$0\" \"$@\"");
    Place::new(&["unshare", "--mount", "sh", "-c", &script])
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder on whatever the checkout is on: `/tmp` may be in memory.
fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A Poseidon, and an agent that it lets in, which is not started yet.
fn pair(agent: Agent) -> (Poseidon, Agent) {
    let poseidon = Poseidon::with(FAST);
    let agent = agent
        .with(&["--url", &poseidon.url()])
        .with_variable("TRITON_IDENTIFIER", "a-device");
    poseidon.register("a-device", "router");
    (poseidon, agent)
}

/// Runs a command on the agent by way of Poseidon.
fn run(poseidon: &Poseidon, words: &[&str]) -> Output {
    poseidon.run(&[&["run", "router", "--"], words].concat())
}

/// Gives the agent a configuration file.
fn configure(agent: Agent, settings: &str) -> Agent {
    let file = agent.folder().join("triton.toml");
    fs::write(&file, settings).unwrap();
    agent.with_variable("TRITON_CONFIG", text(&file))
}

/// A file below the agent's own root folder, as seen from here.
fn inside(agent: &Agent, path: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{}", agent.pid(), path.display()))
}

/// What the agent says of itself, where its socket cannot be seen from here.
fn status_inside(agent: &Agent) -> serde_json::Value {
    let socket = inside(agent, &agent.socket());
    eventually("the agent answers", || support::local::status(&socket))
}

/// A program that the machine has.
fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|found| found.status.success())
}

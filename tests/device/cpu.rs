//! The processor is others': idle without a step, jobs behind the rest, and an answer also while all burn.

use super::*;
use std::time::Duration;
use support::place::user;

/// Processor time of a process, and how often the kernel has switched to it.
fn steps(agent: &Agent) -> (u64, u64) {
    let mut sums = (0, 0);
    for task in fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap() {
        let path = task.unwrap().path().join("schedstat");
        // schedstat: time on a processor, time waited, times it ran.
        let facts = fs::read_to_string(path).unwrap();
        let facts: Vec<u64> = facts
            .split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect();
        sums.0 += facts[0];
        sums.1 += facts[2];
    }
    sums
}

#[test]
fn an_idle_agent_takes_no_processor_time() {
    let poseidon = Poseidon::with(&["--heartbeat-seconds", "60"]);
    poseidon.register("a-device", "router");
    let mut agent = Agent::new()
        .with(&["--url", &poseidon.url()])
        .with_variable("TRITON_IDENTIFIER", "a-device");
    agent.start();
    agent.wait_for_link("connected");
    let silence = || {
        let before = steps(&agent);
        std::thread::sleep(Duration::from_secs(3));
        steps(&agent) == before
    };
    // The first moments have work in them, and one silence may meet a heartbeat.
    assert!((0..5).any(|_| silence()), "{:?}", steps(&agent));
    let before = steps(&agent);
    agent.status();
    assert_ne!(steps(&agent), before, "these counters show steps");
}

#[test]
fn jobs_are_nice_by_setting_and_by_word() {
    let nice = |agent: &Agent, more: &[&str]| {
        let output = agent.run(&[&["exec"], more, &["--", "nice"]].concat());
        stdout(&output).trim().to_owned()
    };
    let agent = Agent::offline();
    assert_eq!(nice(&agent, &[]), "5");
    assert_eq!(nice(&agent, &["--nice", "0"]), "0");
    assert_eq!(nice(&agent, &["--nice", "19"]), "19");
    let started = |place: Place, settings: &str| {
        let mut agent = configure(Agent::new().within(place), settings);
        agent.start();
        agent.wait_until_it_serves();
        agent
    };
    let none = started(Place::default(), "[jobs]\nnice = 0");
    assert_eq!(nice(&none, &[]), "0");
    // What the agent itself is nicer in stays, also where it may not change it.
    let nicer = Place::new(&["nice", "-n", "10"]);
    assert_eq!(nice(&started(nicer, ""), &[]), "10");
    let Some(other) = user() else { return };
    let place = Place::new(&["nice", "-n", "10"]);
    let agent = started(place.then(&other), "");
    assert_eq!(nice(&agent, &[]), "10");
    assert_eq!(nice(&agent, &["--nice", "19"]), "19");
    let refused = agent.run(&["exec", "--nice", "0", "--", "nice"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("may not set nice to 0"), "{said}");
}

#[test]
fn an_answer_comes_while_all_jobs_burn_the_processor() {
    let (poseidon, mut agent) = pair(configure(Agent::new(), "[jobs]\nworkers = 8\n"));
    agent.start();
    agent.wait_for_link("connected");
    let burn = "while :; do :; done";
    let jobs: Vec<_> = (0..8)
        .map(|_| agent.command(&["exec", "--shell", burn]).spawn().unwrap())
        .collect();
    eventually("all burn", || {
        (agent.status()["jobs"]["running"] == 8).then_some(())
    });
    for _ in 0..20 {
        assert!(agent.run(&["status"]).status.success());
    }
    // Poseidon has news of it all the time: three heartbeats later it is as it was.
    let since = poseidon.wait_for("router", "up")["since"].clone();
    std::thread::sleep(Duration::from_secs(3));
    let agent_now = poseidon.wait_for("router", "up");
    assert_eq!(agent_now["since"], since);
    for mut job in jobs {
        job.kill().unwrap();
        job.wait().unwrap();
    }
}

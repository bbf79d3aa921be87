//! `triton doctor`, with and without a daemon.

mod support;

use support::agent::Agent;
use support::fake::{Fake, Notes};
use triton::message::payload::Welcome;

/// The report, and whether it found nothing wrong.
fn ask(agent: &Agent, arguments: &[&str]) -> (bool, String) {
    let done = agent.run(&[&["doctor"], arguments].concat());
    (
        done.status.success(),
        String::from_utf8(done.stdout).unwrap(),
    )
}

/// The line about something.
#[track_caller]
fn line<'a>(report: &'a str, what: &str) -> &'a str {
    let named = |line: &&str| line.split_whitespace().nth(1) == Some(what);
    report
        .lines()
        .find(named)
        .unwrap_or_else(|| panic!("nothing about {what} in:\n{report}"))
}

#[test]
fn the_journal_is_looked_at() {
    let mut agent = Agent::new();
    let (good, report) = ask(&agent, &[]);
    assert!(good, "{report}");
    assert!(line(&report, "journal").starts_with("ok "), "{report}");
    assert!(
        line(&report, "daemon").contains("triton run"),
        "the daemon is not running: {report}"
    );
    agent.start();
    agent.wait_until_it_serves();
    let (good, report) = ask(&agent, &[]);
    assert!(good, "{report}");
    assert!(line(&report, "journal").starts_with("ok "), "{report}");
    agent.stop();
    // What stands in its way.
    let _ = std::fs::remove_dir_all(agent.state().join("journal"));
    std::fs::write(agent.state().join("journal"), "").unwrap();
    let (good, report) = ask(&agent, &[]);
    assert!(!good);
    assert!(
        line(&report, "journal").starts_with("BAD ") && report.contains("in memory"),
        "{report}"
    );
}

#[test]
fn a_daemon_that_hangs_is_a_fault() {
    let agent = Agent::offline();
    agent.signal(libc::SIGSTOP);
    let (good, report) = ask(&agent, &[]);
    agent.signal(libc::SIGCONT);
    assert!(!good, "{report}");
    assert!(line(&report, "daemon").starts_with("BAD "), "{report}");
    let (good, report) = ask(&agent, &[]);
    assert!(good, "{report}");
}

#[test]
fn its_hello_is_a_trial_also_beside_the_daemon() {
    let hellos = Notes::new();
    let seen = hellos.clone();
    let fake = Fake::websocket(move |mut peer| {
        let welcome = Welcome {
            name: Some("attic".to_owned()),
            ..Welcome::default()
        };
        if let Some(hello) = peer.welcome(&welcome) {
            seen.add((hello.probe, hello.instance));
            peer.idle();
        }
    });
    let agent = Agent::of(&fake.url);
    agent.wait_for_link("connected");
    let (good, report) = ask(&agent, &["--url", &fake.url]);
    assert!(good, "{report}");
    assert!(line(&report, "hello").contains("attic"), "{report}");
    let seen = hellos.wait_for(2);
    assert!(!seen[0].0 && seen[1].0, "{seen:?}");
    assert_eq!(seen[0].1, seen[1].1);
    assert_eq!(agent.status()["link"]["state"], "connected");
    assert_eq!(agent.status()["link"]["reconnects"], 0);
}

//! `file.put` through cuts, deaths of the agent, full disks, and with large files.

use crate::central::{Central, data, error, noise};
use crate::put::{assert_nothing_left, names};
use crate::support::agent::Agent;
use crate::support::place::{Namespace, possible};
use crate::support::random::{Random, seed};
use crate::support::{eventually, signal};
use serde_json::json;
use std::fs;
use std::time::Duration;

#[test]
fn a_dozen_cuts_cost_little_of_a_large_file() {
    const SIZE: usize = 40_000_000;
    let central = Central::new();
    let agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let bytes = noise(SIZE);
    central.cut_after(3_000_000);
    let token = central.ask("file.put", &central.put_of(&path, &bytes, json!({})));
    let done = data(central.end_with_nudges(&token, &agent));
    assert_eq!(done["resumed"], 0);
    assert!(fs::read(&path).unwrap() == bytes);
    assert!(central.cuts() >= 12, "{}", central.cuts());
    let again = central.given() - SIZE as u64;
    assert!(again <= (central.cuts() as u64 + 1) * (2 << 20), "{again}");
    assert_nothing_left(&agent, folder.path(), &["x"]);
}

#[test]
fn an_agent_that_dies_at_any_moment_goes_on_where_it_was() {
    let central = Central::new();
    let mut agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, "old").unwrap();
    let bytes = noise(30_000_000);
    let mut random = Random::new(seed("TRITON_FILES_SEED"));
    let (mut resumed, mut most) = (0, 0);
    for _ in 0..8 {
        let before = central.given();
        let token = central.ask("file.put", &central.put_of(&path, &bytes, json!({})));
        // Without any it may not have been accepted, and then it has no end.
        let some = random.below(3_000_000).max(1);
        eventually("some of it is on its way", || {
            (central.given() >= before + some || central.end_now(&token).is_some()).then_some(())
        });
        signal(agent.pid(), libc::SIGKILL);
        agent.wait();
        let now = fs::read(&path).unwrap();
        assert!(now == b"old" || now == bytes, "never anything in between");
        fs::write(&path, "old").unwrap();
        agent.start();
        agent.wait_for_link("connected");
        let ended = central.end(&token).unwrap();
        assert!(ended["status"] == "interrupted" || ended["status"] == "succeeded");
        let left = fs::read_dir(folder.path()).unwrap().flatten();
        let left = left.filter(|e| e.file_name() != "x");
        resumed = left.map(|e| e.metadata().unwrap().len()).sum();
        most = most.max(resumed);
    }
    assert!(most > 0, "it never died in the middle");
    let given = central.given();
    let done = data(central.put(&path, &bytes, json!({})));
    assert_eq!(done["resumed"], resumed);
    assert_eq!(central.given() - given, bytes.len() as u64 - resumed);
    assert!(fs::read(&path).unwrap() == bytes);
    assert_nothing_left(&agent, folder.path(), &["x"]);
}

#[test]
fn what_a_dead_agent_left_is_not_trusted_and_goes_after_a_day() {
    let central = Central::new();
    let mut agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let bytes = noise(1_000_000);
    central.twist(|request, answer| (request.offset < 400_000).then_some(answer));
    let begin = || {
        central.ask("file.put", &central.put_of(&path, &bytes, json!({})));
        eventually("some of it is there", || {
            let left = fs::read_dir(folder.path()).unwrap().flatten().next()?;
            (left.metadata().ok()?.len() > 300_000).then(|| left.path())
        })
    };
    let left = begin();
    agent.kill();
    // Somebody has written to it.
    let mut wrong = fs::read(&left).unwrap();
    wrong[1_000] ^= 1;
    fs::write(&left, &wrong).unwrap();
    agent.start();
    agent.wait_for_link("connected");
    central.straight();
    let done = data(central.put(&path, &bytes, json!({})));
    assert_eq!(done["resumed"], 0);
    assert!(fs::read(&path).unwrap() == bytes);
    fs::remove_file(&path).unwrap();

    central.twist(|request, answer| (request.offset < 400_000).then_some(answer));
    let left = begin();
    agent.kill();
    agent.start();
    agent.wait_for_link("connected");
    assert!(left.exists(), "it is young");
    agent.kill();
    let days = std::time::SystemTime::now() - Duration::from_hours(25);
    fs::File::options()
        .write(true)
        .open(&left)
        .unwrap()
        .set_modified(days)
        .unwrap();
    agent.start();
    eventually("it goes", || (!left.exists()).then_some(()));
    eventually("so does its note", || {
        names(&agent.state().join("transfers"))
            .is_empty()
            .then_some(())
    });
}

#[test]
fn a_full_disk_ends_it_and_leaves_nothing() {
    if !possible("--mount") {
        return;
    }
    let central = Central::new();
    let disk = tempfile::tempdir().unwrap();
    let namespace = Namespace::with_disk(disk.path(), 8 << 20);
    let mut agent = Agent::new().within(namespace.place());
    central.configure(&mut agent, "");
    agent = agent.within(namespace.place());
    agent.start();
    agent.wait_for_link("connected");
    let there = namespace.place().path(disk.path());
    let path = disk.path().join("x");
    data(central.put(&path, b"old", json!({})));
    // It is known beforehand,
    let given = central.given();
    let (code, text) = error(central.put(&path, &noise(8 << 20), json!({})));
    assert_eq!(code, "no-space", "{text}");
    assert!(text.contains("are free"), "{text}");
    assert_eq!(central.given(), given);
    // or comes on the way.
    let ballast = there.join("ballast");
    central.twist(move |request, answer| {
        if request.offset > 2_000_000 && !ballast.exists() {
            crate::support::place::fill(ballast.parent().unwrap());
        }
        Some(answer)
    });
    let (code, text) = error(central.put(&path, &noise(6 << 20), json!({})));
    assert_eq!(code, "no-space", "{text}");
    assert!(text.contains("No space left"), "{text}");
    assert_eq!(fs::read(there.join("x")).unwrap(), b"old");
    assert_nothing_left(&agent, &there, &["ballast", "x"]);
    fs::remove_file(there.join("ballast")).unwrap();
    central.straight();
    data(central.put(&path, &noise(6 << 20), json!({})));
}

#[test]
fn memory_stays_flat_over_a_large_file() {
    const SIZE: u64 = 200_000_000;
    let central = Central::new();
    let agent = central.agent();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    data(central.put(&path, &noise(4_000_000), json!({})));
    let peak = || {
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    let before = peak();
    // The same bytes at every offset, so that nobody has to hold them all; a peer that knows the hash.
    let piece = noise(1 << 16);
    let bytes = piece
        .iter()
        .copied()
        .cycle()
        .take(usize::try_from(SIZE).unwrap());
    let bytes: Vec<u8> = bytes.collect();
    data(central.put(&path, &bytes, json!({})));
    assert_eq!(fs::metadata(&path).unwrap().len(), SIZE);
    let after = peak();
    println!("{before} bytes at most before, {after} after");
    assert!(after < before + (4 << 20), "{before} to {after}");
    // The way back, too.
    let token = central.ask("file.get", &json!({"path": path}));
    data(central.end_with_nudges(&token, &agent));
    assert!(central.taken(&token) == bytes);
    let last = peak();
    println!("{last} after the way back");
    assert!(last < before + (4 << 20), "{before} to {last}");
}

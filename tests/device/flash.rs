//! Flash wears: nothing is written while nothing happens, and what is written goes where a setting says.

use super::*;
use std::os::unix::fs::MetadataExt as _;
use support::fake::{Fake, Notes};
use support::place::{Namespace, possible};
use triton::message::payload::{self, Welcome};

/// What the kernel has counted of a process towards a disk, and when which file below a folder was changed.
fn traces(agent: &Agent, folder: &Path) -> (u64, Vec<(PathBuf, i64, i64, u64)>) {
    let io = fs::read_to_string(format!("/proc/{}/io", agent.pid())).unwrap();
    let bytes = io.lines().find_map(|l| l.strip_prefix("write_bytes: "));
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()) {
            let facts = fs::metadata(&path).unwrap();
            if facts.is_dir() {
                folders.push(path.clone());
            }
            files.push((path, facts.ctime(), facts.ctime_nsec(), facts.len()));
        }
    }
    files.sort();
    (bytes.unwrap().parse().unwrap(), files)
}

#[test]
fn nothing_is_written_between_heartbeats() {
    let beats = Notes::new();
    let seen = beats.clone();
    let fake = Fake::websocket(move |mut peer| {
        let welcome = Welcome {
            heartbeat_seconds: Some(1),
            acked: Some(0),
            ..Welcome::default()
        };
        peer.welcome(&welcome);
        while peer.next_of(payload::HEARTBEAT).is_some() {
            seen.add(());
        }
    });
    let disk = disk();
    let state = disk.path().join("state");
    let agent = Agent::new().with(&["--url", &fake.url, "--state", text(&state)]);
    let mut agent = agent;
    agent.start();
    beats.wait_for(2);
    let before = traces(&agent, &state);
    let count = beats.wait_for(2).len();
    beats.wait_for(count + 5);
    // Questions write nothing either.
    agent.wait_for_link("connected");
    assert!(agent.run(&["history"]).status.success());
    assert_eq!(traces(&agent, &state), before);
    // That these traces show a write at all.
    assert!(agent.run(&["put", "21.5"]).status.success());
    let after = traces(&agent, &state);
    assert_ne!(after.1, before.1);
    if triton::sys::space::is_in_memory(&state) {
        println!("skipped: the checkout is in memory, so write_bytes counts nothing");
    } else {
        assert!(after.0 > before.0, "{} {}", after.0, before.0);
    }
}

/// A folder in memory is empty after each boot, so the one folder above it is made, too.
#[test]
fn the_journal_is_in_memory_by_setting() {
    if !possible("--mount") {
        return;
    }
    let disk = disk();
    let (poseidon, agent) = pair(Agent::new());
    let ram = agent.folder().join("ram");
    let tmpfs = Namespace::with_disk(&ram, 4 << 20);
    let folder = ram.join("triton/journal");
    let state = disk.path().join("state");
    let mut agent = configure(agent, &format!("[journal]\nfolder = {folder:?}\n"))
        .with(&["--state", text(&state)])
        .within(tmpfs.place());
    agent.start();
    agent.wait_for_link("connected");
    assert_eq!(
        agent.status()["journal"]["state"],
        "disk",
        "{}",
        agent.log()
    );
    let before = traces(&agent, &state);
    assert_eq!(stdout(&run(&poseidon, &["echo", "hi"])), "hi\n");
    assert!(agent.run(&["put", "21.5"]).status.success());
    assert_eq!(traces(&agent, &state).1, before.1, "flash was written");
    let there = tmpfs.place().path(&folder);
    assert!(fs::read_dir(there).unwrap().count() > 1);
    // A restart is no reboot: what was there is there.
    assert!(agent.stop().success());
    agent.start();
    agent.wait_for_link("connected");
    assert!(stdout(&agent.run(&["history"])).contains("21.5"));
}

/// A missing folder above a journal on a disk is a disk that is not mounted: it is not made on the disk below.
#[test]
fn an_absent_disk_is_not_replaced_by_the_one_below() {
    let disk = disk();
    if triton::sys::space::is_in_memory(disk.path()) {
        println!("skipped: the checkout is in memory");
        return;
    }
    let stick = disk.path().join("stick");
    let journal = stick.join("journal");
    let mut agent = configure(Agent::new(), &format!("[journal]\nfolder = {journal:?}\n"));
    agent.start();
    agent.wait_for_log("mount its disk or create its parent folder");
    assert_eq!(agent.status()["journal"]["state"], "memory");
    assert!(!stick.exists());
    assert!(agent.run(&["exec", "--", "true"]).status.success());
}

#[test]
fn the_state_is_in_memory_by_setting() {
    if !possible("--mount") {
        return;
    }
    let (_poseidon, agent) = pair(Agent::new());
    let ram = agent.folder().join("ram");
    let state = ram.join("a/b/state");
    let mut agent = agent.with(&["--state", text(&state)]);
    let mut ids = Vec::new();
    for boot in 0..2 {
        let tmpfs = Namespace::with_disk(&ram, 4 << 20);
        agent = agent.within(tmpfs.place());
        for start in 0..2 {
            agent.start();
            agent.wait_for_link("connected");
            let status = agent.status();
            assert_eq!(
                status["journal"]["state"], "disk",
                "boot {boot}, start {start}"
            );
            ids.push(status["instance"].to_string());
            assert!(agent.run(&["put", "21.5"]).status.success());
            assert!(agent.stop().success());
        }
    }
    assert_eq!(ids[0], ids[1], "the same over a restart");
    assert_ne!(ids[1], ids[2], "another one after a boot");
    assert_eq!(ids[2], ids[3]);
}

//! `triton history` and `triton put`, and what a job leaves in the journal, without any Poseidon.

mod support;

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use support::agent::Agent;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn good(done: &Output) -> String {
    assert!(done.status.success(), "{}", text(&done.stderr));
    text(&done.stdout)
}

/// Stores a value; returns its sequence.
#[track_caller]
fn put(agent: &Agent, arguments: &[&str]) -> u64 {
    let done = agent.run(&[&["put"], arguments].concat());
    good(&done).trim().parse().expect("put prints the sequence")
}

/// The records that `triton history` shows.
#[track_caller]
fn history(agent: &Agent, arguments: &[&str]) -> Vec<Value> {
    let done = agent.run(&[&["history", "--json"], arguments].concat());
    good(&done)
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is a record"))
        .collect()
}

fn ids(records: &[Value]) -> Vec<u64> {
    records.iter().map(|r| r["id"].as_u64().unwrap()).collect()
}

#[test]
fn what_was_put_is_shown() {
    let agent = Agent::offline();
    assert_eq!(good(&agent.run(&["history"])), "");
    let first = put(&agent, &["--token", "a", "{\"celsius\": 21.5}"]);
    let second = put(
        &agent,
        &["--token", "b", "--code", "300", "door \u{1b}[2Jopen"],
    );
    assert!(second > first);
    let records = history(&agent, &[]);
    assert_eq!(ids(&records), [first, second]);
    assert_eq!(records[0]["data"], json!({"celsius": 21.5}));
    assert_eq!(records[0]["code"], 200);
    assert_eq!(records[1]["data"], "door \u{1b}[2Jopen");
    let shown = good(&agent.run(&["history"]));
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    assert!(
        lines[0].contains("value 200") && lines[0].contains("21.5"),
        "{shown}"
    );
    assert!(
        lines[1].contains("value 300") && lines[1].contains("open"),
        "{shown}"
    );
    assert!(
        !shown.contains('\u{1b}'),
        "a terminal would obey: {shown:?}"
    );
    let printed: Value =
        serde_json::from_str(&good(&agent.run(&["put", "--json", "--token", "c", "x"]))).unwrap();
    assert_eq!(printed["token"], "c");
    assert!(printed["sequence"].as_u64().unwrap() > second);
}

#[test]
fn filters_and_limits() {
    let agent = Agent::offline();
    let all: Vec<u64> = (0..30)
        .map(|n| {
            let token = if n % 10 == 0 { "tens" } else { "rest" };
            let code = if n % 2 == 0 { "200" } else { "201" };
            put(&agent, &["--token", token, "--code", code, &n.to_string()])
        })
        .collect();
    let shown = |arguments: &[&str]| ids(&history(&agent, arguments));
    assert_eq!(shown(&[]), all[10..], "the newest 20");
    assert_eq!(shown(&["--limit", "3"]), all[27..]);
    assert_eq!(shown(&["--limit", "1000"]), all);
    assert_eq!(shown(&["--token", "tens"]), [all[0], all[10], all[20]]);
    assert_eq!(
        shown(&["--token", "tens", "--limit", "2"]),
        [all[10], all[20]]
    );
    assert_eq!(shown(&["--code", "201"]).len(), 15);
    assert_eq!(shown(&["--code", "201", "--token", "tens"]), [0; 0]);
    let fifth = all[4].to_string();
    assert_eq!(shown(&["--id", &fifth]), all[5..]);
    assert_eq!(shown(&["--id", &fifth, "--limit", "2"]), all[5..7]);
    assert_eq!(
        shown(&["--id", &fifth, "--code", "201", "--limit", "2"]),
        [all[5], all[7]]
    );
    assert_eq!(shown(&["--since", "1h"]), all);
    for field in ["--since", "--etime", "--ctime"] {
        assert_eq!(shown(&[field, "2020-01-01"]), all);
        assert_eq!(shown(&[field, "2120-01-01T00:00:00Z"]), [0; 0]);
    }
}

#[test]
fn a_long_journal_is_shown_to_its_end() {
    let agent = Agent::offline();
    let value = format!("\"{}\"", "<>&".repeat(4_000));
    let all: Vec<u64> = (0..60).map(|_| put(&agent, &[&value])).collect();
    assert_eq!(ids(&history(&agent, &["--id", "0"])), all);
    assert_eq!(ids(&history(&agent, &["--since", "1h"])), all);
    assert_eq!(ids(&history(&agent, &["--limit", "50"])), all[10..]);
}

#[test]
fn put_reads_standard_input_up_to_its_limit() {
    let agent = Agent::offline();
    let send = |bytes: &[u8]| {
        let mut child = agent
            .command(&["put", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may end before it has read all.
        let _ = stdin.write_all(bytes);
        drop(stdin);
        child.wait_with_output().unwrap()
    };
    good(&send(b"two\nlines\n"));
    good(&send(b"[1,\n2]\n"));
    let stored = history(&agent, &[]);
    assert_eq!(stored[0]["data"], "two\nlines");
    assert_eq!(stored[1]["data"], json!([1, 2]));
    for (bytes, reason) in [
        (vec![b'x'; (64 << 10) + 1], "65536"),
        (vec![0xff, 0xfe], "UTF-8"),
    ] {
        let done = send(&bytes);
        assert_eq!(done.status.code(), Some(1));
        assert!(text(&done.stderr).contains(reason), "{done:?}");
    }
    assert_eq!(history(&agent, &[]).len(), 2);
}

#[test]
fn what_the_journal_refuses_is_said() {
    let agent = Agent::offline();
    let done = agent.run(&["put", &"x".repeat((64 << 10) + 1)]);
    assert_eq!(done.status.code(), Some(1));
    let said = text(&done.stderr);
    assert!(said.starts_with("triton: "), "{said}");
    assert!(history(&agent, &[]).is_empty());
}

#[test]
fn a_job_stores_values_under_its_own_token() {
    let agent = Agent::offline();
    let triton = support::agent::program();
    let triton = triton.display();
    let line =
        format!("echo $TRITON_JOB; {triton} put '{{\"step\":1}}'; echo done | {triton} put -");
    let said = good(&agent.run(&["exec", "--shell", &line]));
    let mut said = said.lines();
    let token = said.next().unwrap();
    let sequences: Vec<u64> = said.map(|s| s.parse().unwrap()).collect();
    let stored: Vec<Value> = history(&agent, &["--token", token])
        .into_iter()
        .filter(|r| r["code"] == 200)
        .collect();
    assert_eq!(ids(&stored), sequences);
    assert_eq!(stored[0]["data"], json!({"step": 1}));
    assert_eq!(stored[1]["data"], "done");
    // And under another one where it asks for that.
    let line = format!("{triton} put --token other x");
    good(&agent.run(&["exec", "--shell", &line]));
    assert_eq!(history(&agent, &["--token", "other"]).len(), 1);
}

#[test]
fn exec_without_poseidon_leaves_its_record() {
    let agent = Agent::offline();
    good(&agent.run(&["exec", "--", "true"]));
    let done = agent.run(&["exec", "--", "sh", "-c", "exit 7"]);
    assert_eq!(done.status.code(), Some(7));
    agent.run(&["exec", "--", "/does/not/exist"]);
    let records = history(&agent, &[]);
    let codes: Vec<_> = records
        .iter()
        .map(|r| r["code"].as_u64().unwrap())
        .collect();
    assert_eq!(codes, [0, 1, 0, 2, 0, 2], "{records:?}");
    for pair in records.chunks(2) {
        assert_eq!(pair[0]["token"], pair[1]["token"]);
        assert_eq!(pair[0]["data"]["origin"], "local");
    }
    assert_eq!(records[0]["data"]["what"], "true");
    assert_eq!(records[1]["data"]["status"], "succeeded");
    assert_eq!(records[3]["data"]["exitCode"], 7);
    assert_eq!(records[5]["data"]["code"], "not-found");
    let shown = good(&agent.run(&["history"]));
    assert!(
        shown.contains("exit code 7") && shown.contains("not-found"),
        "{shown}"
    );
    // It is still there after a restart.
    let mut agent = agent;
    agent.stop();
    agent.start();
    agent.wait_until_it_serves();
    assert_eq!(history(&agent, &[]), records);
}

/// `triton history --follow`, line by line.
struct Follower {
    child: Child,
    lines: Receiver<String>,
    complaints: Receiver<String>,
}

impl Follower {
    fn new(agent: &Agent, arguments: &[&str]) -> Self {
        let mut child = agent
            .command(&[&["history", "--follow", "--json"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = reader(child.stdout.take().unwrap());
        let complaints = reader(child.stderr.take().unwrap());
        Self {
            child,
            lines,
            complaints,
        }
    }

    #[track_caller]
    fn next(&self) -> u64 {
        let line = self.lines.recv_timeout(support::PATIENCE);
        let record: Value = serde_json::from_str(&line.expect("a record")).unwrap();
        record["id"].as_u64().unwrap()
    }

    #[track_caller]
    fn complains(&self, part: &str) {
        let line = self.complaints.recv_timeout(support::PATIENCE);
        let line = line.expect("a complaint");
        assert!(line.contains(part), "{line}");
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a pipe; the thread ends with it.
fn reader(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

#[test]
fn follow_goes_on_over_a_restart_of_the_daemon() {
    let mut agent = Agent::offline();
    let first = put(&agent, &["--token", "t", "1"]);
    let follower = Follower::new(&agent, &["--token", "t"]);
    assert_eq!(follower.next(), first);
    put(&agent, &["--token", "other", "2"]);
    let third = put(&agent, &["--token", "t", "3"]);
    assert_eq!(follower.next(), third);
    agent.kill();
    follower.complains("waiting for it");
    agent.start();
    agent.wait_until_it_serves();
    let last = put(&agent, &["--token", "t", "4"]);
    assert_eq!(follower.next(), last);
    follower.complains("is back");
}

#[test]
fn follow_ends_quietly_when_its_reader_is_gone() {
    let agent = Agent::offline();
    put(&agent, &["1"]);
    let mut child = agent
        .command(&["history", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (line, pipe) = support::first_line(&mut child);
    assert!(line.contains("value 200"), "{line}");
    // As `head -1` leaves; no record comes that it could fail to write.
    drop(pipe);
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(text(&done.stderr), "");
}

#[test]
fn ctrl_c_ends_following() {
    let agent = Agent::offline();
    let first = put(&agent, &["1"]);
    let mut follower = Follower::new(&agent, &[]);
    assert_eq!(follower.next(), first);
    support::signal(follower.child.id(), libc::SIGINT);
    let status = support::eventually("it ends", || follower.child.try_wait().unwrap());
    assert!(!status.success());
}

#[test]
fn without_a_daemon_it_says_so() {
    let agent = Agent::new();
    for line in [&["history"][..], &["history", "--follow"], &["put", "1"]] {
        let done = agent.run(line);
        assert_eq!(done.status.code(), Some(1), "{line:?}");
        assert!(text(&done.stderr).contains("triton run"), "{done:?}");
    }
    for (line, part) in [
        (&["put"][..], "DATA"),
        (&["put", "--code", "3", "x"], "above 99"),
        (&["history", "--since", "soon"], "--since takes"),
    ] {
        let done = agent.run(line);
        assert_eq!(done.status.code(), Some(2), "{line:?}");
        assert!(text(&done.stderr).contains(part), "{done:?}");
    }
}

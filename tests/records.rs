//! What the agent has to tell whatever happens: its records, their order, and that each arrives.

mod support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::agent::Agent;
use support::eventually;
use support::fake::{Fake, Notes, sequence};
use triton::message::payload::{self, Hello, JobResult, Output, Status, Welcome};
use triton::message::{ErrorCode, Message};

fn command(id: &str, payload: &Value) -> Message {
    Message {
        id: id.into(),
        conversation_id: id.into(),
        ..Message::with(payload::COMMAND, payload)
    }
}

fn echo(id: &str) -> Message {
    command(id, &json!({"argv": ["echo", id]}))
}

fn read(message: &Message) -> Value {
    message.read().unwrap()
}

#[test]
fn accepted_and_end_are_records_until_they_are_acknowledged() {
    let notes = Notes::new();
    let seen = notes.clone();
    let go = Arc::new(AtomicU64::new(0));
    let through = Arc::clone(&go);
    let fake = Fake::websocket(move |mut peer| {
        let welcome = Welcome {
            acked: Some(0),
            heartbeat_seconds: Some(1),
            ..Welcome::default()
        };
        peer.welcome(&welcome).unwrap();
        let mut request = echo("token");
        request.conversation_id = "talk".into();
        peer.send(&request);
        for _ in 0..3 {
            seen.add(peer.next_in("talk").unwrap());
        }
        let beat =
            |peer: &mut support::fake::Peer| read(&peer.next_of(payload::HEARTBEAT).unwrap());
        eventually("the heartbeat counts what waits", || {
            (beat(&mut peer)["agent"]["queue"] == 2).then_some(())
        });
        eventually("the test lets go", || {
            let through = through.load(Ordering::SeqCst);
            (through > 0).then(|| peer.ack(through))
        });
        eventually("nothing waits any more", || {
            (beat(&mut peer)["agent"]["queue"] == 0).then_some(())
        });
        seen.add(Message::new("done"));
        peer.idle();
    });
    let agent = Agent::of(&fake.url);
    let messages = notes.wait_for(3);
    let kinds: Vec<&str> = messages.iter().map(|m| m.kind.as_str()).collect();
    assert_eq!(kinds, ["accepted", "output", "result"]);
    let (accepted, result) = (read(&messages[0]), read(&messages[2]));
    assert_eq!(
        (&accepted["what"], &accepted["origin"]),
        (&"echo".into(), &"poseidon".into())
    );
    assert_eq!(result["exitCode"], 0);
    for record in [&accepted, &result] {
        assert!(record["etime"].as_f64().unwrap() > 1e9);
        assert!(record["ctime"].as_f64().unwrap() > 1e9);
    }
    let last = sequence(&messages[2]).unwrap();
    assert!(sequence(&messages[0]).unwrap() < last);
    let journal = agent.status()["journal"].clone();
    assert_eq!(
        (&journal["waiting"], &journal["last"]),
        (&2.into(), &last.into())
    );
    go.store(last, Ordering::SeqCst);
    notes.wait_for(4);
    let journal = agent.status()["journal"].clone();
    assert_eq!(
        (&journal["waiting"], &journal["acked"]),
        (&0.into(), &last.into())
    );
    let shown = String::from_utf8(agent.run(&["status"]).stdout).unwrap();
    assert!(shown.contains("0 records wait for Poseidon"), "{shown}");
}

#[test]
fn what_was_not_acknowledged_comes_again_and_what_was_does_not() {
    let notes = Notes::new();
    let seen = notes.clone();
    let stored = AtomicU64::new(0);
    let fake = Fake::each(move |n, mut peer| {
        peer.welcome_at(stored.load(Ordering::SeqCst)).unwrap();
        match n {
            // Cut after the end has arrived; only the first record counts as stored.
            0 => {
                peer.send(&echo("first"));
                let accepted = peer.next_record().unwrap();
                stored.store(sequence(&accepted).unwrap(), Ordering::SeqCst);
                seen.add(peer.next_record().unwrap());
            }
            1 => {
                let end = peer.next_record().unwrap();
                stored.store(sequence(&end).unwrap(), Ordering::SeqCst);
                peer.ack(sequence(&end).unwrap());
                seen.add(end);
                peer.until_status();
            }
            _ => {
                peer.send(&echo("second"));
                seen.add(peer.next_record().unwrap());
                peer.idle();
            }
        }
    });
    let _agent = Agent::of(&fake.url);
    let messages = notes.wait_for(3);
    assert_eq!(messages[0].kind, payload::RESULT);
    assert_eq!(messages[0].payload, messages[1].payload);
    assert_eq!(messages[1].conversation_id, "first");
    // Records come in their order: had the first job's been left, it would have come before.
    assert_eq!(
        (&*messages[2].kind, &*messages[2].conversation_id),
        ("accepted", "second")
    );
}

#[test]
fn who_acknowledges_nothing_gets_each_record_once() {
    for plain in [true, false] {
        let notes = Notes::new();
        let seen = notes.clone();
        let fake = Fake::each(move |n, mut peer| {
            if !plain {
                peer.welcome(&Welcome::default()).unwrap();
            }
            let token = format!("job-{n}");
            peer.send(&echo(&token));
            for _ in 0..2 {
                seen.add(peer.next_record().unwrap());
            }
            if n > 0 {
                peer.idle();
            }
        });
        let agent = Agent::of(&fake.url);
        let got: Vec<(String, String)> = notes
            .wait_for(4)
            .into_iter()
            .map(|m| (m.kind, m.conversation_id))
            .collect();
        let wanted = [
            ("accepted", "job-0"),
            ("result", "job-0"),
            ("accepted", "job-1"),
            ("result", "job-1"),
        ];
        assert_eq!(got, wanted.map(|(k, c)| (k.to_owned(), c.to_owned())));
        eventually("nothing waits", || {
            (agent.status()["journal"]["waiting"] == 0).then_some(())
        });
    }
}

#[test]
fn at_most_256_records_are_on_their_way() {
    const JOBS: usize = 140;
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        peer.welcome_at(0).unwrap();
        // Few at a time, so that none is refused: as many as have ended.
        let mut got = Vec::new();
        for n in 0..JOBS {
            peer.send(&command(&format!("job-{n}"), &json!({"argv": ["true"]})));
            while got.len() < 256 && got.len() < 2 * (n + 1) {
                got.push(peer.next_record().unwrap());
            }
            // What has left by now is all that may.
            for message in peer.until_status() {
                assert_eq!(sequence(&message), None, "{message:?}");
            }
        }
        seen.add(got.len());
        peer.ack(sequence(got.last().unwrap()).unwrap());
        while got.len() < 2 * JOBS {
            got.push(peer.next_record().unwrap());
        }
        let numbers: Vec<u64> = got.iter().filter_map(sequence).collect();
        assert!(numbers.is_sorted());
        let different: BTreeSet<u64> = numbers.into_iter().collect();
        seen.add(different.len());
        peer.idle();
    });
    let agent = Agent::of(&fake.url);
    assert_eq!(notes.wait_for(2), [256, 2 * JOBS]);
    assert_eq!(agent.status()["journal"]["waiting"], 2 * JOBS - 256);
}

#[test]
fn an_end_follows_all_of_its_output() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        peer.welcome_at(0).unwrap();
        for n in 0..3 {
            let line = json!({"shell": "head -c 400000 /dev/zero"});
            peer.send(&command(&format!("job-{n}"), &line));
        }
        let (mut bytes, mut ended) = ([0; 3], 0);
        while ended < 3 {
            let message = peer.next().unwrap();
            let Some(n) = message.conversation_id.strip_prefix("job-") else {
                continue;
            };
            let n: usize = n.parse().unwrap();
            match message.kind.as_str() {
                payload::OUTPUT => {
                    let output: Output = message.read().unwrap();
                    bytes[n] += output.into_bytes().unwrap().len();
                }
                payload::RESULT => {
                    assert_eq!(message.read::<JobResult>().unwrap().stdout_bytes, 400_000);
                    seen.add(bytes[n]);
                    ended += 1;
                }
                _ => {}
            }
        }
        peer.idle();
    });
    let _agent = Agent::of(&fake.url);
    assert_eq!(notes.wait_for(3), [400_000; 3]);
}

#[test]
fn a_token_that_arrives_again_is_answered_and_is_no_record() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        peer.welcome_at(0).unwrap();
        let job = command("job", &json!({"shell": "echo up; exec sleep 1000"}));
        peer.send(&job);
        peer.next_of(payload::OUTPUT).unwrap();
        peer.send(&job);
        seen.add(peer.next_in("job").unwrap());
        peer.send(&Message::with(payload::CANCEL, &json!({"job": "job"})));
        seen.add(peer.next_in("job").unwrap());
        peer.send(&job);
        seen.add(peer.next_in("job").unwrap());
        peer.idle();
    });
    let agent = Agent::of(&fake.url);
    let messages = notes.wait_for(3);
    assert_eq!(read(&messages[0]), json!({"state": "running"}));
    assert!(sequence(&messages[1]).is_some());
    assert_eq!(sequence(&messages[2]), None);
    let [end, again] = [1, 2].map(|n| messages[n].read::<JobResult>().unwrap());
    assert_eq!(end.status, Status::Cancelled);
    assert_eq!(end, again);
    assert_eq!(
        agent.status()["journal"]["last"],
        sequence(&messages[1]).unwrap()
    );
}

#[test]
fn local_jobs_reach_poseidon_also_those_from_before_it_was_there() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        peer.welcome_at(0).unwrap();
        while let Some(record) = peer.next_record() {
            seen.add(record);
        }
    });
    let mut agent = Agent::new();
    let config = agent.folder().join("t.toml");
    std::fs::write(&config, "").unwrap();
    agent = agent.with(&["--config", config.to_str().unwrap()]);
    agent.start();
    agent.wait_until_it_serves();
    let offline = agent.run(&["exec", "--", "sh", "-c", "echo offline; exit 4"]);
    assert_eq!(offline.status.code(), Some(4));
    std::fs::write(&config, format!("url = {:?}\n", fake.url)).unwrap();
    agent.signal(libc::SIGHUP);
    notes.wait_for(2);
    let online = agent.run(&["exec", "--", "echo", "online"]);
    assert_eq!(online.stdout, b"online\n");
    let records = notes.wait_for(4);
    assert_eq!(records[0].conversation_id, records[1].conversation_id);
    assert_eq!(read(&records[0])["origin"], "local");
    assert_eq!(read(&records[1])["exitCode"], 4);
    assert_eq!(read(&records[1])["tail"]["stdout"]["data"], "offline\n");
    assert_eq!(read(&records[2])["what"], "echo");
    assert_eq!(read(&records[3])["status"], "succeeded");
}

#[test]
fn an_ack_that_makes_no_sense_is_refused_and_one_that_knows_too_much_not_believed() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        peer.welcome_at(0).unwrap();
        peer.send(&echo("job"));
        let accepted = peer.next_record().unwrap();
        let end = peer.next_record().unwrap();
        for bad in [json!({}), json!({"through": -1}), json!({"through": "x"})] {
            peer.send(&Message::with(payload::ACK, &bad));
            seen.add(peer.next_of(payload::ERROR).unwrap());
        }
        let newer = Message {
            version: 2,
            ..Message::with(payload::ACK, &json!({"through": 1}))
        };
        peer.send(&newer);
        seen.add(peer.next_of(payload::ERROR).unwrap());
        peer.ack(u64::MAX);
        peer.until_status();
        peer.ack(sequence(&accepted).unwrap());
        peer.until_status();
        seen.add(end);
        peer.idle();
    });
    let agent = Agent::of(&fake.url);
    let messages = notes.wait_for(5);
    let codes: Vec<ErrorCode> = messages[..4]
        .iter()
        .map(|m| m.read::<payload::Error>().unwrap().code)
        .collect();
    assert_eq!(
        codes[..3],
        [ErrorCode::Invalid, ErrorCode::Invalid, ErrorCode::Invalid]
    );
    assert_eq!(codes[3], ErrorCode::UnsupportedVersion);
    assert_eq!(
        agent.status()["journal"]["acked"],
        sequence(&messages[4]).unwrap()
    );
    assert_eq!(agent.status()["link"]["reconnects"], 0);
}

#[test]
fn hello_names_the_journal_and_the_process() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::each(move |n, mut peer| {
        seen.add(peer.welcome_at(0).unwrap());
        if n > 0 {
            peer.idle();
        }
    });
    let mut agent = Agent::of(&fake.url);
    let hellos: Vec<Hello> = notes.wait_for(2);
    let run = hellos[0].run.clone().unwrap();
    assert_eq!(run.len(), 32);
    assert_eq!(hellos[1].run.as_ref(), Some(&run), "the same process");
    let journal = hellos[1].journal.clone().unwrap();
    assert!(!journal.id.is_empty());
    assert!(["disk", "memory"].contains(&journal.state.as_str()));
    let status = agent.status()["journal"].clone();
    assert_eq!(
        (&status["id"], &status["state"]),
        (&journal.id.into(), &journal.state.into())
    );
    agent.kill();
    agent.start();
    assert_ne!(notes.wait_for(3)[2].run, Some(run), "another process");
}

#[test]
fn a_clone_is_told_what_to_do_and_stays_away() {
    let fake = Fake::websocket(|mut peer| {
        let hello = peer.next_of(payload::HELLO).unwrap();
        peer.send(&hello.reply(payload::BYE, &json!({"reason": "collision"})));
        peer.idle();
    });
    let agent = Agent::of(&fake.url);
    let log = agent.wait_for_log("next attempt in");
    let wait = log.split("next attempt in ").nth(1).unwrap();
    let wait: f64 = wait.split(' ').next().unwrap().parse().unwrap();
    assert!((30.0..=36.0).contains(&wait), "{wait}");
    let error = log.lines().find(|l| l.starts_with("ERROR")).unwrap();
    let file = agent.state().join("instance");
    assert!(error.contains("another living agent"), "{error}");
    assert!(error.contains(file.to_str().unwrap()), "{error}");
    assert!(
        agent.status()["link"]["lastError"]
            .as_str()
            .unwrap()
            .contains("another living agent")
    );
}

#[test]
fn a_stop_waits_for_what_is_to_be_acknowledged() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        peer.welcome_at(0).unwrap();
        peer.send(&command(
            "job",
            &json!({"shell": "echo up; exec sleep 1000"}),
        ));
        peer.next_of(payload::OUTPUT).unwrap();
        seen.add("up".to_owned());
        let end = peer.next_of(payload::RESULT).unwrap();
        // Not a word more until this is acknowledged.
        let stream = peer.socket.get_ref().try_clone().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        seen.add(
            if peer.socket.read().is_err() {
                "silence"
            } else {
                "words"
            }
            .to_owned(),
        );
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        peer.ack(sequence(&end).unwrap());
        seen.add(peer.next().map_or("gone".to_owned(), |m| m.kind));
    });
    let mut agent = Agent::of(&fake.url);
    notes.wait_for(1);
    assert!(agent.stop().success());
    assert_eq!(notes.wait_for(3), ["up", "silence", payload::BYE]);
}

#[test]
fn a_state_folder_that_cannot_be_used_does_not_keep_the_agent_from_work() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        let hello = peer.welcome_at(0).unwrap();
        peer.send(&echo("job"));
        peer.next_record().unwrap();
        let end = peer.next_record().unwrap();
        seen.add((hello, end));
        peer.idle();
    });
    let mut agent = Agent::new()
        .with(&["--url", &fake.url])
        .with_variable("TRITON_IDENTIFIER", "given-from-outside");
    // Even root cannot make a folder of a file.
    std::fs::write(agent.state(), "").unwrap();
    agent.start();
    let (hello, end) = notes.wait_for(1).remove(0);
    assert_eq!(read(&end)["status"], "succeeded");
    let journal = hello.journal.unwrap();
    assert_eq!(journal.state, "memory");
    assert!(
        journal
            .reason
            .unwrap()
            .contains("the instance id is in memory")
    );
    assert_eq!(hello.instance.len(), 32);
    let log = agent.log();
    let state = agent.state();
    assert!(
        log.lines()
            .any(|l| l.starts_with("ERROR") && l.contains(state.to_str().unwrap())),
        "{log}"
    );
    assert_eq!(agent.status()["instance"], hello.instance);
    let shown = String::from_utf8(agent.run(&["status"]).stdout).unwrap();
    assert!(shown.contains("of this process only"), "{shown}");
    assert!(agent.stop().success());

    // Without an identifier there is nobody to be.
    let mut agent = Agent::new();
    std::fs::write(agent.state(), "").unwrap();
    agent.start();
    assert_eq!(agent.wait().code(), Some(1));
    assert!(
        agent.log().contains("cannot create the state folder"),
        "{}",
        agent.log()
    );
}

#[test]
fn a_small_journal_still_runs_jobs() {
    let mut agent = Agent::new();
    let config = agent.folder().join("t.toml");
    let text = "[journal]\nbytes = 65536\nmemory_bytes = 32768\n[jobs]\nremembered = 256\n";
    std::fs::write(&config, text).unwrap();
    agent = agent.with(&["--config", config.to_str().unwrap()]);
    agent.start();
    agent.wait_until_it_serves();
    assert!(
        agent
            .log()
            .contains("jobs.remembered means nothing any more")
    );
    let done = agent.run(&["exec", "--shell", "seq 100000 | tail -c 5000"]);
    assert!(done.status.success());
    assert_eq!(done.stdout.len(), 5_000);
}

/// The limit is for what is taken: a record that is there has to get through.
#[test]
fn a_small_message_limit_keeps_no_record_back() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        peer.welcome_at(0).unwrap();
        while let Some(history) = peer.next_of(payload::HISTORY) {
            for record in read(&history)["records"].as_array().unwrap() {
                seen.add(record["id"].as_u64().unwrap());
            }
        }
    });
    let mut agent = Agent::new();
    let config = agent.folder().join("t.toml");
    let limits = "[limits]\nmessage_bytes = 16384\n";
    std::fs::write(&config, limits).unwrap();
    agent = agent.with(&["--config", config.to_str().unwrap()]);
    agent.start();
    agent.wait_until_it_serves();
    let put = agent.run(&["put", &"<&>".repeat(3_000)]);
    let said = String::from_utf8_lossy(&put.stderr).into_owned();
    assert!(said.contains("too-large"), "{said}");
    let value = "<&>".repeat(1_000);
    for _ in 0..20 {
        let put = agent.run(&["put", &value]);
        assert!(put.status.success(), "{put:?}");
    }
    let text = format!("url = {:?}\n{limits}", fake.url);
    std::fs::write(&config, text).unwrap();
    agent.signal(libc::SIGHUP);
    assert!(notes.wait_for(20).is_sorted());
}

/// A server that starts one job which notes its starts, and then tells what comes after the agent was killed.
fn killed_while_it_ran() -> (Agent, Notes<Message>, std::path::PathBuf) {
    let mut agent = Agent::new();
    let starts = agent.folder().join("starts");
    let line = format!("echo x >> {}; echo up; exec sleep 1000", starts.display());
    let job = command("job", &json!({ "shell": line }));
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::each(move |n, mut peer| {
        peer.welcome_at(0).unwrap();
        if n == 0 {
            peer.send(&job);
            seen.add(peer.next_record().unwrap());
            peer.next_of(payload::OUTPUT).unwrap();
            seen.add(Message::new("up"));
            return peer.idle();
        }
        for _ in 0..2 {
            seen.add(peer.next_record().unwrap());
        }
        peer.send(&job);
        seen.add(peer.next_in("job").unwrap());
        peer.idle();
    });
    agent = agent.with(&["--url", &fake.url]);
    agent.start();
    notes.wait_for(2);
    agent.kill();
    agent.start();
    (agent, notes, starts)
}

#[test]
fn a_job_of_a_killed_agent_is_interrupted_and_never_run_again() {
    let (agent, notes, starts) = killed_while_it_ran();
    let messages = notes.wait_for(5);
    assert_eq!(
        messages[0].payload, messages[2].payload,
        "the same accepted"
    );
    assert!(sequence(&messages[3]).unwrap() > sequence(&messages[2]).unwrap());
    let [end, again] = [3, 4].map(|n| messages[n].read::<JobResult>().unwrap());
    assert_eq!(end.status, Status::Interrupted);
    assert_eq!(again, end);
    assert_eq!(sequence(&messages[4]), None);
    assert_eq!(agent.status()["jobs"]["running"], 0);
    assert_eq!(std::fs::read_to_string(starts).unwrap(), "x\n");
}

#[test]
fn an_end_that_was_not_acknowledged_outlives_the_agent() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::each(move |n, mut peer| {
        seen.add(peer.welcome_at(0).unwrap().journal.unwrap().id);
        if n == 0 {
            peer.send(&echo("job"));
        }
        for _ in 0..2 {
            let record = peer.next_record().unwrap();
            seen.add(format!("{} {}", record.kind, record.payload.unwrap()));
        }
        peer.idle();
    });
    let mut agent = Agent::of(&fake.url);
    notes.wait_for(3);
    agent.kill();
    agent.start();
    let said = notes.wait_for(6);
    assert_eq!(said[..3], said[3..]);
}

#[test]
fn what_was_done_offline_outlives_the_agent() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        peer.welcome_at(0).unwrap();
        for _ in 0..2 {
            seen.add(peer.next_record().unwrap());
        }
        peer.idle();
    });
    let mut agent = Agent::offline();
    assert!(
        agent
            .run(&["exec", "--", "echo", "offline"])
            .status
            .success()
    );
    agent.kill();
    agent = agent.with(&["--url", &fake.url]);
    agent.start();
    let records = notes.wait_for(2);
    assert_eq!(read(&records[0])["origin"], "local");
    assert_eq!(read(&records[1])["tail"]["stdout"]["data"], "offline\n");
}

#[test]
fn a_token_is_known_after_a_restart() {
    let mut agent = Agent::offline();
    let starts = agent.folder().join("starts");
    let line = format!("echo x >> {}", starts.display());
    let job = command("job", &json!({ "shell": line }));
    let ask = |agent: &Agent| -> Vec<Message> {
        use std::io::{BufRead as _, Write as _};
        let mut stream = std::os::unix::net::UnixStream::connect(agent.socket()).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        stream
            .write_all((job.encode().unwrap() + "\n").as_bytes())
            .unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        std::io::BufReader::new(stream)
            .lines()
            .map(|line| Message::decode(line.unwrap().as_bytes(), 1 << 20).unwrap())
            .collect()
    };
    let first = ask(&agent);
    assert_eq!(first.len(), 2, "{first:?}");
    agent.stop();
    agent.start();
    agent.wait_until_it_serves();
    let second = ask(&agent);
    assert_eq!(second.len(), 1, "{second:?}");
    let [first, second] = [&first[1], &second[0]].map(|m| m.read::<JobResult>().unwrap());
    assert_eq!(first, second);
    assert_eq!(std::fs::read_to_string(starts).unwrap(), "x\n");
}

//! What a job says and asks from inside: `triton progress`, `get`, `put`.

mod support;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::agent::{Agent, program};
use support::fake::{Fake, Notes, Peer};
use support::{eventually, local};
use triton::local::client::{Client, Event};
use triton::message::payload::{
    self, COMMAND, DataRequest, DataResponse, HistoryGet, Progress, Welcome,
};
use triton::message::{ErrorCode, Message, id, text};

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A shell line as a job, in which `triton` is the program under test.
fn line(text: &str) -> String {
    format!("triton() {{ {} \"$@\"; }}; {text}", program().display())
}

#[test]
fn progress_shows_while_the_job_runs() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::welcoming(move |mut peer| {
        let job = json!({ "shell": line("triton progress 42.5 half a loaf && sleep 100") });
        let request = Message::with(COMMAND, &job);
        peer.send(&request);
        let progress = peer.next_of(payload::PROGRESS).unwrap();
        assert_eq!(progress.conversation_id, request.id);
        seen.add(progress.read::<Progress>().unwrap());
        peer.idle();
    });
    let agent = Agent::of(&fake.url);
    let progress = notes.wait_for(1).remove(0);
    assert_eq!(
        (progress.percent, progress.message.as_str()),
        (42.5, "half a loaf")
    );
    let status = agent.status();
    let listed = &status["jobs"]["list"][0];
    assert_eq!(listed["progress"]["percent"], 42.5, "{status}");
    // Another client may say it too, if it names the job.
    let token = listed["token"].as_str().unwrap();
    let done = agent.run(&["progress", "--job", token, "99%"]);
    assert!(done.status.success(), "{}", said(&done.stderr));
    assert_eq!(
        agent.status()["jobs"]["list"][0]["progress"]["percent"],
        99.0
    );
}

#[test]
fn what_makes_no_sense_is_told() {
    let agent = Agent::offline();
    for (arguments, part) in [
        (&["progress", "5"][..], "TRITON_JOB"),
        (&["progress", "--job", "none", "5"], "not-found"),
        (&["progress", "--job", "none", "much"], "PERCENT"),
        (&["progress", "--job", "none", "100.5"], "from 0 to 100"),
        (&["progress", "--job", "none", "--", "-1"], "from 0 to 100"),
        (&["progress", "--job", "none", "nan"], "from 0 to 100"),
        (&["get", "attributes"], "offline"),
    ] {
        let done = agent.run(arguments);
        assert_eq!(done.status.code(), Some(1), "{arguments:?}");
        let text = said(&done.stderr);
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
}

#[test]
fn a_flood_of_progress_is_bounded_and_the_last_word_counts() {
    let agent = Agent::offline();
    let mut job = agent
        .command(&["exec", "--shell", "echo ready; sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (ready, _rest) = support::first_line(&mut job);
    assert_eq!(ready, "ready\n");
    let token = agent.status()["jobs"]["list"][0]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = agent.resident();
    let mut client = Client::connect(&agent.socket(), 1 << 20).unwrap();
    let mut answers = 0;
    let mut last = None;
    let count = 10_000_u32;
    for n in 1..=count {
        let percent = f64::from(n) / 100.0;
        let said = json!({ "job": token, "percent": percent, "message": "x".repeat(500) });
        client
            .send(&Message::with(payload::PROGRESS, &said))
            .unwrap();
        last = Some(percent);
        // Half of the answers are read late, so that some wait.
        if n % 100 == 0 {
            for _ in 0..100 {
                let Event::Message(answer) = client.next(None, None).unwrap() else {
                    panic!("an answer")
                };
                assert_eq!(answer.kind, payload::RESULT);
                answers += 1;
            }
        }
    }
    assert_eq!(answers, count);
    let progress = agent.status()["jobs"]["list"][0]["progress"].clone();
    assert_eq!(progress["percent"].as_f64(), last);
    assert_eq!(progress["message"].as_str().unwrap().len(), 256);
    assert!(
        agent.resident() < before + (4 << 20),
        "{before} -> {}",
        agent.resident()
    );
    job.kill().unwrap();
    job.wait().unwrap();
}

#[test]
fn a_terminal_shows_progress_and_a_file_does_not() {
    let agent = Agent::offline();
    let shell = line("triton progress 7 seven; echo out; sleep 0.3");
    let plain = agent.run(&["exec", "--shell", &shell]);
    assert_eq!(
        (said(&plain.stdout), said(&plain.stderr)),
        ("out\n".into(), String::new())
    );
    // script(1) gives it a terminal.
    let command = format!(
        "{} --socket {} exec --shell '{shell}'",
        program().display(),
        agent.socket().display()
    );
    let shown = std::process::Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        said(&shown.stdout).contains("  7 % seven"),
        "{}",
        said(&shown.stdout)
    );
}

/// Answers requests for data by name: `big` has bytes of all kinds.
fn shelf(peer: &mut Peer, big: &[u8], pieces: Option<&AtomicUsize>) {
    while let Some(message) = peer.next() {
        if message.kind != payload::DATA_REQUEST {
            continue;
        }
        let request: DataRequest = message.read().unwrap();
        let content = match request.reference.as_str() {
            "big" => big,
            "empty" => &[],
            "attributes" => b"{\"a\":\"b\"}",
            _ => {
                peer.send(
                    &message.reply_error(ErrorCode::NotFound, "it was not given to this device"),
                );
                continue;
            }
        };
        // A connection that breaks in the middle, once.
        if let Some(pieces) = pieces
            && pieces.fetch_add(1, Ordering::SeqCst) == 2
        {
            return;
        }
        let from = usize::try_from(request.offset).unwrap();
        let to = content
            .len()
            .min(from + usize::try_from(request.length).unwrap());
        let response = DataResponse {
            reference: request.reference,
            offset: request.offset,
            data: text::encode(&content[from..to]),
            eof: to == content.len(),
            sha256: None,
        };
        peer.send(&message.reply(payload::DATA_RESPONSE, &response));
    }
}

#[test]
fn get_brings_any_bytes_and_goes_on_after_a_cut() {
    let big: Arc<Vec<u8>> = Arc::new(
        (0..400_000_u32)
            .map(|n| (n * 7 + n / 256).to_le_bytes()[0])
            .collect(),
    );
    let content = Arc::clone(&big);
    let pieces = AtomicUsize::new(0);
    let fake = Fake::each(move |_, mut peer| {
        peer.welcome(&Welcome::default());
        shelf(&mut peer, &content, Some(&pieces));
    });
    let agent = Agent::of(&fake.url);
    agent.wait_for_link("connected");
    let file = agent.folder().join("secret");
    fs::write(&file, "old").unwrap();
    let done = agent.run(&["get", "big", "--to", file.to_str().unwrap()]);
    assert!(done.status.success(), "{}", said(&done.stderr));
    assert_eq!(fs::read(&file).unwrap(), **big);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(agent.status()["link"]["reconnects"].as_u64().unwrap() >= 1);
    let done = agent.run(&["get", "big"]);
    assert_eq!(done.stdout, **big);
    assert_eq!(
        said(&agent.run(&["get", "attributes"]).stdout),
        "{\"a\":\"b\"}"
    );
    assert!(agent.run(&["get", "empty"]).status.success());
    // What there is not leaves the old file, and nothing beside it.
    let done = agent.run(&["get", "secret/none", "--to", file.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(1));
    assert!(
        said(&done.stderr).contains("not-found"),
        "{}",
        said(&done.stderr)
    );
    assert_eq!(fs::read(&file).unwrap(), **big);
    let hidden = fs::read_dir(agent.folder()).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with('.')
    });
    assert_eq!(hidden.count(), 0);
    // From within a job, with nothing but what it finds there.
    let done = agent.run(&["exec", "--shell", &line("triton get attributes")]);
    assert_eq!(
        said(&done.stdout),
        "{\"a\":\"b\"}",
        "{}",
        said(&done.stderr)
    );
}

#[test]
fn get_begins_anew_where_the_data_is_replaced_meanwhile() {
    const SIZE: usize = 150_000;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let fake = Fake::each(move |_, mut peer| {
        peer.welcome(&Welcome::default());
        while let Some(message) = peer.next() {
            if message.kind != payload::DATA_REQUEST {
                continue;
            }
            let request: DataRequest = message.read().unwrap();
            let n = count.fetch_add(1, Ordering::SeqCst);
            // `once` is replaced behind its first piece, `always` behind each, and `wrong` is not what it says.
            let version = match request.reference.as_str() {
                "once" => n.min(1),
                "always" => n,
                _ => 0,
            };
            let content = vec![u8::try_from(version % 256).unwrap(); SIZE];
            let from = usize::try_from(request.offset).unwrap();
            let to = SIZE.min(from + usize::try_from(request.length).unwrap());
            let mut hash = id::hex(&Sha256::digest(&content));
            if request.reference == "wrong" {
                hash = "0".repeat(64);
            }
            let response = DataResponse {
                reference: request.reference,
                offset: request.offset,
                data: text::encode(&content[from..to]),
                eof: to == SIZE,
                sha256: Some(hash),
            };
            peer.send(&message.reply(payload::DATA_RESPONSE, &response));
        }
    });
    let agent = Agent::of(&fake.url);
    agent.wait_for_link("connected");
    let file = agent.folder().join("data");
    let path = file.to_str().unwrap();
    let done = agent.run(&["get", "once", "--to", path]);
    assert!(done.status.success(), "{}", said(&done.stderr));
    assert_eq!(fs::read(&file).unwrap(), vec![1; SIZE]);
    for name in ["always", "wrong"] {
        asked.store(0, Ordering::SeqCst);
        let done = agent.run(&["get", name, "--to", path]);
        assert_eq!(done.status.code(), Some(1), "{name}");
        let text = said(&done.stderr);
        assert!(text.contains("3 tries"), "{name}: {text}");
        assert_eq!(fs::read(&file).unwrap(), vec![1; SIZE], "{name}");
    }
    // What is written cannot be taken back there, so it is not begun anew.
    asked.store(0, Ordering::SeqCst);
    let done = agent.run(&["get", "once"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(said(&done.stderr).contains("not whole"));
}

#[test]
fn put_with_a_key_stores_it_under_the_job() {
    let agent = Agent::offline();
    let shell = line(
        "triton put signal -61 && printf 'a\\nb\\n' | triton put text - && triton put whole && echo $TRITON_JOB",
    );
    let done = agent.run(&["exec", "--shell", &shell.replace("-61", "-- -61")]);
    assert!(done.status.success(), "{}", said(&done.stderr));
    let token = said(&done.stdout).lines().last().unwrap().to_owned();
    let get = HistoryGet {
        token: Some(token),
        code: Some(200),
        ..HistoryGet::default()
    };
    let answer = eventually("the values are stored", || {
        local::ask(&agent.socket(), &Message::with(payload::HISTORY_GET, &get)).ok()
    });
    let history: Value = answer.read().unwrap();
    let stored: Vec<&Value> = history["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| &record["data"])
        .collect();
    assert_eq!(
        stored,
        [
            &json!({ "signal": -61 }),
            &json!({ "text": "a\nb" }),
            &json!("whole")
        ]
    );
}

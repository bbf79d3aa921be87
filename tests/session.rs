//! The real agent against servers that follow a script: what it says, and what it does with each answer.

mod support;

use sha2::{Digest as _, Sha256};
use support::agent::Agent;
use support::eventually;
use support::fake::{Fake, Notes, sequence};
use triton::message::payload::{
    self, Bye, DataResponse, Error, Heartbeat, Hello, JobResult, Output, Status, Welcome,
};
use triton::message::{ErrorCode, Message, id, text};

#[test]
fn hello_and_the_first_heartbeat_come_as_the_protocol_says() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::welcoming(move |mut peer| {
        if let Some(beat) = peer.next_of(payload::HEARTBEAT) {
            seen.add(beat);
        }
        peer.idle();
    });
    let agent = Agent::of(&fake.url);
    let beat: Heartbeat = notes.wait_for(1)[0].read().unwrap();
    assert!(beat.uptime.unwrap() > 0.0);
    assert!(beat.physical_memory_total.unwrap() > beat.physical_memory_used.unwrap());
    assert!(beat.agent.unwrap().rss > 100_000);
    let identifier = String::from_utf8(agent.run(&["identifier"]).stdout).unwrap();
    let identifier = identifier.trim();
    assert_eq!(
        fake.requests.lock().unwrap()[0],
        format!("/ Bearer {identifier}")
    );
    // The secret is in no log and in no argument.
    assert!(!agent.log().contains(identifier));
    let arguments = std::fs::read(format!("/proc/{}/cmdline", agent.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(identifier));
}

#[test]
fn an_identifier_in_the_url_takes_the_place_of_the_header() {
    let fake = Fake::welcoming(support::fake::Peer::idle);
    let url = format!("{}/triton/{{identifier}}", fake.url.replace("ws:", "http:"));
    let mut agent = Agent::new()
        .with(&["--url", &url])
        .with_variable("TRITON_IDENTIFIER", "a-b_c/d");
    agent.start();
    agent.wait_for_link("connected");
    assert_eq!(
        fake.requests.lock().unwrap().last().unwrap(),
        "/triton/a-b_c%2Fd "
    );
    assert!(!agent.log().contains("a-b_c"), "{}", agent.log());
    assert!(!agent.status().to_string().contains("a-b_c"));
}

/// The table of section 2: what the log must say, and how long the pause is.
#[test]
fn each_answer_has_its_reaction() {
    let head = |status: &str, more: &str| {
        let text = format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n");
        &*Box::leak(text.into_boxed_str())
    };
    for (answer, says, pause) in [
        (head("403 Forbidden", ""), "poseidon approve", 30.0..=36.0),
        (head("401 Unauthorized", ""), "not registered", 30.0..=36.0),
        (
            head("429 Too Many Requests", "Retry-After: 100\r\n"),
            "429",
            100.0..=200.0,
        ),
        (
            head("503 Service Unavailable", "Retry-After: 100\r\n"),
            "503",
            100.0..=200.0,
        ),
        (head("503 Service Unavailable", ""), "http", 0.0..=1.0),
        (head("404 Not Found", ""), "http", 0.0..=1.0),
        (
            head("302 Found", "Location: /elsewhere\r\n"),
            "http",
            0.0..=1.0,
        ),
        (head("200 OK", ""), "http", 0.0..=1.0),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n", "http", 0.0..=1.0),
    ] {
        let fake = Fake::http(answer);
        let agent = Agent::of(&fake.url);
        let log = agent.wait_for_log("next attempt in");
        assert!(log.contains(says), "{answer}: {log}");
        let wait = log.split("next attempt in ").nth(1).unwrap();
        let wait: f64 = wait.split(' ').next().unwrap().parse().unwrap();
        assert!(pause.contains(&wait), "{answer}: {wait}");
        assert_ne!(agent.status()["link"]["state"], "connected");
    }
}

#[test]
fn who_is_not_let_in_tries_again_at_once_on_sighup() {
    let fake = Fake::http("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let agent = Agent::of(&fake.url);
    fake.wait_for_connection();
    agent.wait_for_link("waiting");
    agent.signal(libc::SIGHUP);
    fake.wait_for_connection();
}

#[test]
fn several_urls_are_tried_in_turn() {
    let refused = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let fake = Fake::welcoming(support::fake::Peer::idle);
    let agent = Agent::of(&format!("ws://{refused}/,{}", fake.url));
    agent.wait_for_link("connected");
}

#[test]
fn a_refused_connection_and_a_name_without_address_name_their_phase() {
    let refused = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let agent = Agent::of(&format!("ws://{refused}/"));
    agent.wait_for_log("tcp: ");
    let agent = Agent::of("ws://does-not-exist.invalid/");
    agent.wait_for_log("dns: ");
}

#[test]
fn a_server_that_says_nothing_is_left_at_the_deadline_of_its_phase() {
    let fake = Fake::tcp(|stream| {
        std::thread::sleep(support::PATIENCE);
        drop(stream);
    });
    let mut agent = Agent::new().with(&["--url", &fake.url]);
    let config = agent.folder().join("t.toml");
    std::fs::write(&config, "[connect]\nhttp_seconds = 1\n").unwrap();
    agent = agent.with(&["--config", config.to_str().unwrap()]);
    agent.start();
    let log = agent.wait_for_log("next attempt in");
    assert!(
        log.contains("http: ") && log.contains("within 1 s"),
        "{log}"
    );
}

#[test]
fn a_plain_server_gets_heartbeats_and_may_command() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        // It knows no hello: it just asks.
        let mut request = Message::with("command", &serde_json::json!({"argv": ["echo", "plain"]}));
        request.id = "seed-1".into();
        request.conversation_id = "seed-1".into();
        peer.send(&request);
        seen.add(peer.next_of(payload::HEARTBEAT).unwrap());
        peer.idle();
    });
    let agent = Agent::of(&fake.url);
    notes.wait_for(1);
    eventually("the status says plain", || {
        (agent.status()["link"]["plain"] == true).then_some(())
    });
}

#[test]
fn a_server_without_welcome_is_taken_for_a_plain_one() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        seen.add(peer.next_of(payload::HEARTBEAT).unwrap());
        peer.idle();
    });
    let mut agent = Agent::new().with(&["--url", &fake.url]);
    let config = agent.folder().join("t.toml");
    std::fs::write(&config, "[connect]\nhello_seconds = 1\n").unwrap();
    agent = agent.with(&["--config", config.to_str().unwrap()]);
    agent.start();
    notes.wait_for(1);
}

/// To a plain server records count as acknowledged when they are sent: whoever knows `hello` and `welcome` is none.
#[test]
fn who_refuses_the_hello_or_garbles_the_welcome_gets_no_records() {
    for (answer, payload, why) in [
        (
            payload::ERROR,
            serde_json::json!({"code": "busy", "message": "come later"}),
            r#"the server refuses the hello: busy: "come later""#,
        ),
        (
            payload::WELCOME,
            serde_json::json!({"name": 5}),
            "the server's welcome is refused: the payload cannot be read: name: ",
        ),
        (
            payload::WELCOME,
            serde_json::json!({"name": "x".repeat(1 << 20)}),
            "the server's welcome is refused: the message has 1048",
        ),
    ] {
        let notes = Notes::new();
        let seen = notes.clone();
        let fake = Fake::websocket(move |mut peer| {
            let hello = peer.next_of(payload::HELLO).unwrap();
            peer.send(&hello.reply(answer, &payload));
            seen.add(std::iter::from_fn(|| peer.next()).collect::<Vec<_>>());
        });
        let mut agent = Agent::new().with(&["--url", &fake.url]);
        let config = agent.folder().join("t.toml");
        std::fs::write(&config, "[connect]\nhello_seconds = 1\n").unwrap();
        agent = agent.with(&["--config", config.to_str().unwrap()]);
        agent.start();
        agent.wait_until_it_serves();
        let put = agent.run(&["put", "1"]);
        assert!(put.status.success(), "{put:?}");
        // The one that stands now, perhaps, and a whole one behind it.
        let sent = notes.wait_for(3);
        assert!(
            sent.iter().flatten().all(|m| m.kind == payload::ERROR),
            "{sent:?}"
        );
        eventually("the status says why", || {
            let error = agent.status()["link"]["lastError"].as_str()?.to_owned();
            error.contains(why).then_some(())
        });
        assert_eq!(agent.status()["journal"]["waiting"], 1);
    }
}

#[test]
fn a_bye_says_why_the_server_has_closed() {
    let fake = Fake::welcoming(|mut peer| {
        let bye = serde_json::json!({"reason": "maintenance until noon"});
        peer.send(&Message::with(payload::BYE, &bye));
    });
    let agent = Agent::of(&fake.url);
    eventually("the status says why", || {
        let error = agent.status()["link"]["lastError"].to_string();
        error.contains("maintenance until noon").then_some(())
    });
}

#[test]
fn a_command_takes_its_course() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::welcoming(move |mut peer| {
        let request = Message::with(
            payload::COMMAND,
            &serde_json::json!({"shell": "printf out; printf err >&2; exit 3"}),
        );
        peer.send(&request);
        loop {
            let message = peer.next_in(&request.id).unwrap();
            let last = message.kind == payload::RESULT;
            seen.add(message);
            if last {
                break;
            }
        }
        // The same token again starts nothing and gives the same end.
        peer.send(&request);
        seen.add(peer.next_in(&request.id).unwrap());
        peer.idle();
    });
    let _agent = Agent::of(&fake.url);
    let messages = notes.wait_for(5);
    assert_eq!(messages[0].kind, payload::ACCEPTED);
    let mut output = [String::new(), String::new()];
    for message in &messages[1..messages.len() - 2] {
        let piece: Output = message.read().unwrap();
        output[piece.stream as usize].push_str(&piece.data);
    }
    assert_eq!(output, ["out", "err"]);
    let [.., end, again] = &messages[..] else {
        panic!()
    };
    let result: JobResult = end.read().unwrap();
    assert_eq!((result.status, result.exit_code), (Status::Failed, Some(3)));
    assert_eq!((result.stdout_bytes, result.stderr_bytes), (3, 3));
    assert_eq!(result.tail.stdout.data, "out");
    assert_eq!(again.kind, end.kind);
    assert_eq!(again.read::<JobResult>().unwrap(), result);
    // Only the end itself is the record.
    assert!(sequence(end).is_some() && sequence(again).is_none());
}

#[test]
fn hostile_messages_are_answered_and_the_connection_lives() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::welcoming(move |mut peer| {
        let big = format!(
            "<tritonMessage><type>t</type><id>1</id><payload>{}</payload></tritonMessage>",
            "x".repeat(2 << 20)
        );
        for text in [
            "garbage".to_owned(),
            big,
            "<!DOCTYPE l [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;\">]><tritonMessage><type>t</type><id>2</id><payload>&b;</payload></tritonMessage>".to_owned(),
            "<tritonMessage><type>never heard of</type><id>3</id></tritonMessage>".to_owned(),
            "<tritonMessage><type>command</type><version>9</version><id>4</id></tritonMessage>".to_owned(),
            "<tritonMessage><type>command</type><id>5</id><payload>{\"argv\":7}</payload></tritonMessage>".to_owned(),
            "<tritonMessage><type>command</type><id>6</id><payload>{}</payload></tritonMessage>".to_owned(),
            "<tritonMessage><type>cancel</type><id>7</id><payload>{\"job\":\"none\"}</payload></tritonMessage>".to_owned(),
        ] {
            peer.send_text(text);
            seen.add(peer.next_of(payload::ERROR).unwrap());
        }
        let _ = peer
            .socket
            .send(tungstenite::Message::binary(vec![1, 2, 3]));
        seen.add(peer.next_of(payload::ERROR).unwrap());
        // An error is not answered; the connection still works.
        peer.send(&Message::with(
            payload::ERROR,
            &Error::new(ErrorCode::Busy, "no"),
        ));
        let status = Message::new(payload::AGENT_STATUS);
        peer.send(&status);
        seen.add(peer.next_in(&status.id).unwrap());
        peer.idle();
    });
    let agent = Agent::of(&fake.url);
    let answers = notes.wait_for(10);
    let codes: Vec<String> = answers[..9]
        .iter()
        .map(|m| m.read::<Error>().unwrap().code.to_string())
        .collect();
    assert_eq!(
        codes,
        [
            "invalid",
            "too-large",
            "invalid",
            "unknown-type",
            "unsupported-version",
            "invalid",
            "invalid",
            "not-found",
            "invalid"
        ]
    );
    assert_eq!(answers[4].conversation_id, "4");
    assert_eq!(answers[9].kind, payload::AGENT_STATUS);
    assert!(agent.resident() < 32 << 20, "{}", agent.resident());
    assert_eq!(agent.status()["link"]["reconnects"], 0);
}

#[test]
fn a_dead_path_is_noticed_by_silence() {
    // It upgrades, welcomes, and then neither reads nor answers pings.
    let fake = Fake::websocket(|mut peer| {
        let welcome = Welcome {
            heartbeat_seconds: Some(1),
            ..Welcome::default()
        };
        peer.welcome(&welcome);
        peer.ignore();
    });
    let mut agent = Agent::new().with(&["--url", &fake.url]);
    let config = agent.folder().join("t.toml");
    std::fs::write(&config, "[connect]\npong_seconds = 1\n").unwrap();
    agent = agent.with(&["--config", config.to_str().unwrap()]);
    agent.start();
    agent.wait_for_log("no sign of life");
}

#[test]
fn a_close_and_a_broken_frame_lead_to_a_new_connection() {
    let fake = Fake::welcoming(|mut peer| {
        use std::io::Write as _;
        // An unmasked frame with reserved bits: no WebSocket.
        let _ = peer.socket.get_mut().write_all(&[0xFF; 64]);
        peer.idle();
    });
    let agent = Agent::of(&fake.url);
    fake.wait_for_connection();
    agent.wait_for_log("the connection ended");
    fake.wait_for_connection();
}

#[test]
fn a_stop_says_bye_after_the_ends_of_the_jobs() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::welcoming(move |mut peer| {
        let request = Message::with(
            payload::COMMAND,
            &serde_json::json!({"shell": "echo started; sleep 1000"}),
        );
        peer.send(&request);
        let _ = peer.next_of(payload::OUTPUT);
        seen.add(Message::new("started"));
        while let Some(message) = peer.next() {
            if message.kind != payload::HEARTBEAT {
                seen.add(message);
            }
        }
    });
    let mut agent = Agent::of(&fake.url);
    notes.wait_for(1);
    let before = std::time::Instant::now();
    assert!(agent.stop().success());
    assert!(before.elapsed() < std::time::Duration::from_secs(5));
    let messages = notes.wait_for(3);
    let result: JobResult = messages[1].read().unwrap();
    assert_eq!(result.status, Status::Cancelled);
    assert_eq!(messages[2].read::<Bye>().unwrap().reason, "the agent stops");
    assert!(!agent.socket().exists(), "the socket is removed");
}

#[test]
fn sighup_with_another_url_moves_the_connection() {
    let first = Fake::welcoming(support::fake::Peer::idle);
    let second = Fake::welcoming(support::fake::Peer::idle);
    let mut agent = Agent::new();
    let config = agent.folder().join("t.toml");
    std::fs::write(&config, format!("url = {:?}\n", first.url)).unwrap();
    agent = agent.with(&["--config", config.to_str().unwrap()]);
    agent.start();
    agent.wait_for_link("connected");
    std::fs::write(&config, "url = 7\n").unwrap();
    agent.signal(libc::SIGHUP);
    agent.wait_for_log("the old configuration stays in force");
    assert_eq!(agent.status()["link"]["state"], "connected");
    std::fs::write(&config, format!("url = {:?}\n", second.url)).unwrap();
    agent.signal(libc::SIGHUP);
    second.wait_for_connection();
}

#[test]
fn failed_reconnects_cost_nothing() {
    let refused = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let agent = Agent::of(&format!("ws://localhost:{}/", refused.port()));
    agent.wait_for_link("waiting");
    let attempts = || agent.log().matches("next attempt in").count();
    let again = |count: usize| {
        eventually("another attempt", || {
            agent.signal(libc::SIGHUP);
            (attempts() >= count).then_some(())
        });
    };
    again(20);
    let before = agent.resources();
    let memory = agent.resident();
    again(200);
    // The resolver's thread comes and goes, and while a last attempt looks up its name it has a file open: what
    // is leaked stays, though.
    eventually(&format!("the resources of {before:?} again"), || {
        let after = agent.resources();
        (after.0 <= before.0 && after.1 <= before.1 + 1).then_some(())
    });
    assert!(
        agent.resident() <= memory + (512 << 10),
        "{memory} -> {}",
        agent.resident()
    );
}

#[test]
fn what_cannot_be_read_before_welcome_is_answered_at_once() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        let hello = peer.next_of(payload::HELLO).unwrap();
        for bad in [
            "garbage".to_owned(),
            "<tritonMessage><type>welcome</type><version>2</version><id>1</id></tritonMessage>"
                .to_owned(),
            "<tritonMessage><type>welcome</type><id>2</id><payload>7</payload></tritonMessage>"
                .to_owned(),
        ] {
            peer.send_text(bad);
            seen.add(peer.next().unwrap());
        }
        peer.send(&hello.reply(payload::WELCOME, &Welcome::default()));
        seen.add(peer.next().unwrap());
        peer.idle();
    });
    let agent = Agent::of(&fake.url);
    let answers = notes.wait_for(4);
    let kinds: Vec<&str> = answers.iter().map(|m| m.kind.as_str()).collect();
    assert_eq!(kinds, ["error", "error", "error", "heartbeat"]);
    assert_ne!(agent.status()["link"]["plain"], true);
}

#[test]
fn a_bye_stays_on_its_connection() {
    // The first server reads nothing, so that the farewell finds no room; the second notes what comes first.
    let first = Fake::welcoming(|mut peer| {
        let flood = Message::with(payload::COMMAND, &serde_json::json!({"argv": ["yes"]}));
        peer.send(&flood);
        peer.ignore();
    });
    let notes = Notes::new();
    let seen = notes.clone();
    let second = Fake::welcoming(move |mut peer| {
        while let Some(message) = peer.next() {
            seen.add(message.kind);
        }
    });
    let mut agent = Agent::new();
    let config = agent.folder().join("t.toml");
    std::fs::write(&config, format!("url = {:?}\n", first.url)).unwrap();
    agent = agent.with(&["--config", config.to_str().unwrap()]);
    agent.start();
    agent.wait_until_it_serves();
    eventually("the flood runs", || {
        (agent.status()["jobs"]["running"] == 1).then_some(())
    });
    std::fs::write(&config, format!("url = {:?}\n", second.url)).unwrap();
    agent.signal(libc::SIGHUP);
    let kinds = notes.wait_for(3);
    assert!(!kinds.contains(&payload::BYE.to_owned()), "{kinds:?}");
}

/// Poseidon sends one when it has something else to say of the device: nothing that is under way begins anew by it.
#[test]
fn a_further_welcome_changes_what_it_says_and_nothing_else() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        let Some(hello) = peer.next_of(payload::HELLO) else {
            return;
        };
        let asked: Hello = hello.read().unwrap();
        assert_eq!(asked.heartbeat_seconds, Some(40), "as it is configured");
        let mut welcome = Welcome {
            name: Some("attic".to_owned()),
            heartbeat_seconds: Some(3600),
            acked: Some(0),
            ..Welcome::default()
        };
        peer.send(&hello.reply(payload::WELCOME, &welcome));
        let content = b"content";
        let hash = id::hex(&Sha256::digest(content));
        let target = tempfile::tempdir().unwrap();
        let put = serde_json::json!({
            "path": target.path().join("file"), "ref": format!("sha256:{hash}"), "size": content.len(), "sha256": hash,
        });
        peer.send(&Message::with(payload::FILE_PUT, &put));
        // `accepted` is here and not acknowledged, the content is asked for and not given, and the heartbeat of the first
        // welcome is here, in whatever order.
        let (mut request, mut beats, mut accepted) = (None, 0, 0);
        while request.is_none() || beats == 0 || accepted == 0 {
            let message = peer.next().unwrap();
            match message.kind.as_str() {
                payload::DATA_REQUEST => request = Some(message),
                payload::HEARTBEAT => beats += 1,
                payload::ACCEPTED => accepted += 1,
                _ => {}
            }
        }
        let request = request.unwrap();
        welcome.name = Some("loft".to_owned());
        welcome
            .attributes
            .insert("floor".to_owned(), "4".to_owned());
        welcome.heartbeat_seconds = Some(1800);
        welcome.acked = None;
        peer.send(&hello.reply(payload::WELCOME, &welcome));
        let mut beaten = false;
        while !beaten {
            let message = peer.next().unwrap();
            beaten = message.kind == payload::HEARTBEAT;
            seen.add(message);
        }
        for message in peer.until_status() {
            seen.add(message);
        }
        let response = DataResponse {
            reference: format!("sha256:{hash}"),
            data: text::encode(content),
            eof: true,
            ..DataResponse::default()
        };
        peer.send(&request.reply(payload::DATA_RESPONSE, &response));
        while let Some(message) = peer.next() {
            seen.add(message);
        }
    });
    let mut agent = Agent::new().with(&["--url", &fake.url, "--heartbeat", "40"]);
    agent.start();
    let kinds = || -> Vec<String> {
        let all = notes.wait_for(0).into_iter();
        all.map(|m| m.kind)
            .filter(|kind| kind != payload::PROGRESS)
            .collect()
    };
    eventually("the file is put", || {
        kinds().contains(&payload::RESULT.to_owned()).then_some(())
    });
    // A whole heartbeat at once; no second `accepted`, and no second question for what was asked for.
    assert_eq!(kinds(), [payload::HEARTBEAT, payload::RESULT]);
    let messages = notes.wait_for(0);
    let beat = messages.iter().find(|m| m.kind == payload::HEARTBEAT);
    assert!(beat.unwrap().read::<Heartbeat>().unwrap().agent.is_some());
    let link = agent.status()["link"].clone();
    assert_eq!(link["name"], "loft");
    assert_eq!(link["attributes"], serde_json::json!({"floor": "4"}));
    assert_eq!(
        (&link["heartbeatSeconds"], &link["reconnects"]),
        (&1800.into(), &0.into())
    );
    let kept = std::fs::read_to_string(agent.state().join("attributes.json")).unwrap();
    assert_eq!(kept, r#"{"floor":"4"}"#);
}

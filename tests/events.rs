//! Events and metrics from end to end: the real agent and its commands, and a scripted server.

mod support;

use serde_json::{Value, json};
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::process::{Output, Stdio};
use support::agent::Agent;
use support::eventually;
use support::fake::{Fake, Notes};
use triton::message::Message;
use triton::message::payload::{self, Welcome};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn line(name: &str) -> String {
    format!("CEF:0|v|p|1|s|{name}|5|src=192.0.2.1")
}

/// An agent with a configuration file.
fn agent(settings: &str) -> Agent {
    let agent = Agent::new();
    let path = agent.folder().join("triton.toml");
    std::fs::write(&path, settings).unwrap();
    let path = path.to_str().unwrap().to_owned();
    agent.with(&["--config", &path])
}

#[track_caller]
fn good(done: &Output) -> String {
    assert!(done.status.success(), "{}", text(&done.stderr));
    text(&done.stdout)
}

fn with_input(agent: &Agent, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = agent.command(arguments);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// What `triton history` has of events: source and line.
fn stored(agent: &Agent) -> Vec<(String, String)> {
    let shown = good(&agent.run(&["history", "--json", "--code", "101", "--limit", "1000"]));
    let pair = |record: &str| {
        let record: Value = serde_json::from_str(record).unwrap();
        let text = |name: &str| record["data"][name].as_str().unwrap().to_owned();
        (text("source"), text("cef"))
    };
    shown.lines().map(pair).collect()
}

fn read(message: &Message) -> Value {
    message.read().unwrap()
}

#[test]
fn what_came_while_offline_arrives_later_and_until_it_is_acknowledged() {
    let seen = Notes::new();
    let notes = seen.clone();
    let fake = Fake::each(move |connection, mut peer| {
        // The second connection's server has the first event, by what it says.
        let acked = u64::from(connection > 0);
        let Some(_) = peer.welcome_at(acked) else {
            return;
        };
        let Some(events) = peer.next_of(payload::EVENTS) else {
            return;
        };
        let events = read(&events);
        if connection > 0 {
            peer.ack(events["last"].as_u64().unwrap());
        }
        notes.add(events);
        if connection > 0 {
            peer.idle();
        }
    });
    let mut agent = Agent::new();
    agent.start();
    agent.wait_until_it_serves();
    assert_eq!(good(&agent.run(&["event", &line("a")])), "1\n");
    let built = [
        "event",
        "--vendor",
        "A|B",
        "--product",
        "P",
        "--signature",
        "17",
        "--name",
        r"n\m",
        "--severity",
        "High",
        "--host",
        "door-1",
        "msg=a=b c",
        "suser=anna",
    ];
    assert_eq!(good(&agent.run(&built)), "2\n");
    // Not lost by kill -9: it was written before it was answered.
    agent.kill();
    let mut agent = agent.with(&["--url", &fake.url]);
    agent.start();
    let seen = seen.wait_for(2);
    let first = seen[0]["events"].as_array().unwrap();
    assert_eq!(first.len(), 2);
    assert_eq!(
        (&first[0]["sequence"], &first[0]["cef"]),
        (&json!(1), &json!(line("a")))
    );
    assert_eq!(first[0]["source"], "command");
    assert_eq!(first[1]["host"], "door-1");
    assert_eq!(
        first[1]["cef"],
        r"CEF:0|A\|B|P||17|n\\m|High|msg=a\=b c suser=anna"
    );
    assert!(first[1]["time"].as_f64().unwrap() > 1.7e9 && first[1]["stored"].is_f64());
    // Again what was not acknowledged, and no more than that.
    assert_eq!(seen[1]["events"], json!([first[1]]));
    eventually("nothing waits", || {
        (agent.status()["journal"]["waiting"] == 0).then_some(())
    });
}

#[test]
fn poseidon_too_may_store_events_and_ask_for_metrics() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::websocket(move |mut peer| {
        let welcome = Welcome {
            acked: Some(0),
            heartbeat_seconds: Some(1),
            deltas: true,
            nested_deltas: true,
            ..Welcome::default()
        };
        let hello = peer.welcome(&welcome).unwrap();
        for kind in [payload::EVENT, payload::METRIC] {
            assert!(hello.capabilities.iter().any(|known| known == kind));
        }
        let ask = |kind, payload| Message::with(kind, &payload);
        let event = ask(payload::EVENT, json!({"cef": line("x"), "time": 9.5}));
        let metric = ask(
            payload::METRIC,
            json!({"name": "a/b", "value": 21.5, "unit": "C"}),
        );
        let short = ask(
            payload::METRIC,
            json!({"name": "a/b", "value": 21.5, "unit": "C", "ttl": 1}),
        );
        let wrong = ask(payload::METRIC, json!({"name": "a b", "value": 1}));
        for message in [&event, &metric, &wrong] {
            peer.send(message);
            seen.add(peer.next_in(&message.id).unwrap());
        }
        let beat = |peer: &mut support::fake::Peer, fits: &dyn Fn(&Value) -> bool| {
            eventually("such a heartbeat", || {
                let beat = peer.next_of(payload::HEARTBEAT)?;
                fits(&read(&beat)).then_some(beat)
            })
        };
        seen.add(beat(&mut peer, &|beat| beat.get("metrics").is_some()));
        peer.send(&short);
        // After its time the list is gone, which makes a heartbeat whole: a delta only says that nothing changed.
        seen.add(beat(&mut peer, &|beat| {
            beat.get("metrics").is_none() && beat.get("delta").is_none()
        }));
        peer.idle();
    });
    let _agent = Agent::of(&fake.url);
    let seen = notes.wait_for(5);
    let kinds: Vec<&str> = seen.iter().map(|m| &*m.kind).collect();
    assert_eq!(
        kinds,
        ["result", "result", "error", "heartbeat", "heartbeat"]
    );
    assert_eq!(read(&seen[0])["sequence"], 1);
    assert_eq!(read(&seen[2])["code"], "invalid");
    assert_eq!(
        read(&seen[3])["metrics"],
        json!([{"name": "a/b", "value": 21.5, "unit": "C"}])
    );
}

#[test]
fn lines_of_standard_input_are_judged_one_by_one() {
    let agent = Agent::offline();
    let mut input = format!("{}\nhello\n\n{}\r\n", line("a"), line("b")).into_bytes();
    input.extend(vec![b'x'; 20_000]);
    input.extend_from_slice(format!("\n{}\n", line("")).as_bytes());
    input.extend_from_slice(b"CEF:0|v|p|1|s|\xff|5|\n");
    input.extend_from_slice(format!("Nov 21 10:00:00 fw01 ids: {}", line("c")).as_bytes());
    let done = with_input(&agent, &["event", "-"], &input);
    assert_eq!(done.status.code(), Some(1));
    let said = text(&done.stderr);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    for (line, parts) in lines.iter().zip([
        ["line 2: ", "no CEF:"],
        ["line 5: ", "events.line_bytes"],
        ["line 6: ", "the name is empty"],
        ["line 7: ", "UTF-8"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    let events: Vec<String> = stored(&agent).into_iter().map(|(_, line)| line).collect();
    assert_eq!(events, [line("a"), line("b"), line("c")]);
    let many: String = (0..2_500).map(|n| line(&n.to_string()) + "\n").collect();
    assert_eq!(
        with_input(&agent, &["event", "-"], many.as_bytes())
            .status
            .code(),
        Some(0)
    );
    assert_eq!(agent.status()["events"]["stored"], 2_503);
    for (arguments, part) in [
        (&["event"][..], "event takes one line"),
        (&["event", "x"], "no CEF:"),
        (&["event", "--name", "x"], "--vendor is missing"),
        (&["metric", "a", "1", "--remove"], "metric takes NAME VALUE"),
        (&["metric", "a", "one"], "no number"),
        (&["metric", "a b", "1"], "invalid: a name"),
    ] {
        let done = agent.run(arguments);
        assert_eq!(done.status.code(), Some(1), "{arguments:?}");
        assert!(text(&done.stderr).contains(part), "{}", text(&done.stderr));
    }
    good(&agent.run(&["metric", "a", "-1.5", "--ttl", "9", "--unit", "dBm"]));
    good(&agent.run(&["metric", "a", "--remove"]));
}

#[test]
fn the_listener_takes_events_counts_the_others_and_limits_who_floods() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let settings = format!(
        "[events]\nsyslog_udp = \"127.0.0.1:0\"\nsyslog_unix = {path:?}\nrate = 20\nline_bytes = 1024\n"
    );
    let mut agent = agent(&settings);
    agent.start();
    agent.wait_until_it_serves();
    let address = eventually("it listens", || {
        let sources = agent.status()["events"]["sources"].clone();
        let name = sources[0][0].as_str()?.strip_prefix("udp ")?.to_owned();
        (!name.ends_with(":0") && path.exists()).then_some(name)
    });
    let unix = UnixDatagram::unbound().unwrap();
    unix.connect(&path).unwrap();
    unix.send(format!("<13>Nov 21 10:00:00 ids[7]: {}\n\0", line("unix")).as_bytes())
        .unwrap();
    unix.send(b"<13>Nov 21 10:00:00 cron[8]: nothing").unwrap();
    unix.send(b"CEF:0|v|p|1|s|wrong|50|").unwrap();
    unix.send(line(&"x".repeat(1_100)).as_bytes()).unwrap();
    unix.send(b"\xff\xfe").unwrap();
    let counts = |wanted: [u64; 3]| {
        eventually(
            &format!("refused, without event and stored are {wanted:?}"),
            || {
                let events = agent.status()["events"].clone();
                let of = |name: &str| events[name].as_u64();
                ([of("refused")?, of("notCef")?, of("stored")?] == wanted).then_some(events)
            },
        )
    };
    counts([3, 1, 1]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..200 {
        socket
            .send_to(line(&n.to_string()).as_bytes(), &address)
            .unwrap();
    }
    let events = eventually("the flood is over", || {
        let events = agent.status()["events"].clone();
        let sum = events["limited"].as_u64()? + events["stored"].as_u64()?;
        (sum == 201).then_some(events)
    });
    // The burst, and what a slow machine's time lets in.
    let taken = events["stored"].as_u64().unwrap() - 1;
    assert!((20..120).contains(&taken), "{events}");
    let stored = stored(&agent);
    assert_eq!(stored[0], ("syslog/unix".to_owned(), line("unix")));
    assert_eq!(stored[1], ("syslog/127.0.0.1".to_owned(), line("0")));
    agent.stop();
    let log = agent.log();
    assert!(
        log.contains("3 lines were refused") && log.contains("faster than events.rate"),
        "{log}"
    );
    assert!(!path.exists(), "the socket goes with the agent");
}

#[test]
fn a_followed_file_goes_on_over_an_end_of_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ids.log");
    let append = |name: &str| {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path);
        writeln!(file.unwrap(), "{}", line(name)).unwrap();
    };
    append("before");
    let mut agent = agent(&format!("[events]\nfiles = [{path:?}]\n"));
    agent.start();
    agent.wait_until_it_serves();
    let wait_for = |agent: &Agent, names: &[&str]| {
        let wanted: Vec<String> = names.iter().map(|name| line(name)).collect();
        eventually(&format!("{names:?} are stored"), || {
            let events: Vec<String> = stored(agent).into_iter().map(|(_, line)| line).collect();
            (events == wanted).then_some(())
        });
    };
    eventually("its position is known", || {
        agent.state().join("events.json").exists().then_some(())
    });
    append("a");
    wait_for(&agent, &["a"]);
    agent.kill();
    append("b");
    agent.start();
    agent.wait_until_it_serves();
    wait_for(&agent, &["a", "b"]);
    agent.stop();
    std::fs::rename(&path, path.with_extension("log.1")).unwrap();
    append("c");
    agent.start();
    agent.wait_until_it_serves();
    append("d");
    wait_for(&agent, &["a", "b", "c", "d"]);
}

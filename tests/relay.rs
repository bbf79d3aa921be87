//! Nodes behind nodes: real agents that reach the real Poseidon through another one.
#![cfg(feature = "relay")]
#![allow(missing_docs)]

mod support;

use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use support::agent::Agent;
use support::eventually;
use support::fake::Fake;
use support::port::Port;
use support::poseidon::Poseidon;

/// An agent of `url` that relays at the port, with more lines for its section.
fn relay(url: &str, port: &Port, more: &str) -> Agent {
    let agent = Agent::new();
    let file = agent.folder().join("triton.toml");
    let text = format!(
        "url = \"{url}\"\nheartbeat_seconds = 1\nlog = \"debug\"\n[relay]\nlisten = \"{}\"\n{more}\n",
        port.address
    );
    fs::write(&file, text).unwrap();
    agent.with(&["--config", file.to_str().unwrap()])
}

fn register(poseidon: &Poseidon, agent: &Agent, name: &str) {
    let identifier = agent.run(&["identifier"]).stdout;
    poseidon.register(String::from_utf8(identifier).unwrap().trim(), name);
}

/// An agent that knows no other way than through `relay`.
fn node(url: &str, relay: SocketAddr) -> Agent {
    let proxy = format!("http://{relay}");
    Agent::new().with(&["--url", url, "--heartbeat", "1", "--proxy", &proxy])
}

fn nodes(relay: &Agent) -> usize {
    let status = relay.status();
    status["relay"]["nodes"].as_array().map_or(0, Vec::len)
}

#[track_caller]
fn done(poseidon: &Poseidon, arguments: &[&str]) -> String {
    let output = poseidon.run(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the relay says to these bytes, to its end.
fn say(relay: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(relay).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // What was refused may end with a reset behind the answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn connect(place: &str) -> Vec<u8> {
    format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n").into_bytes()
}

fn place(url: &str) -> &str {
    url.trim_start_matches("ws://")
}

fn listens(port: &Port) {
    eventually("the relay listens", || {
        TcpStream::connect(port.address).ok()
    });
}

#[test]
fn a_node_behind_a_node_behind_a_node_is_managed_like_any_other() {
    let poseidon = Poseidon::start();
    let (first, second) = (Port::hold(), Port::hold());
    let mut near = relay(&poseidon.url(), &first, "");
    // It is a node of the first one, and has one itself.
    let proxy = format!("http://{}", first.address);
    let mut middle = relay(&poseidon.url(), &second, "").with(&["--proxy", &proxy]);
    let mut far = node(&poseidon.url(), second.address);
    for (agent, name) in [(&near, "near"), (&middle, "middle"), (&far, "far")] {
        register(&poseidon, agent, name);
    }
    for (agent, name) in [
        (&mut near, "near"),
        (&mut middle, "middle"),
        (&mut far, "far"),
    ] {
        agent.start();
        poseidon.wait_for(name, "up");
    }
    // Both ways, and more than any buffer on the way holds.
    let size = 8 * 1024 * 1024;
    let text = format!("head -c {size} /dev/zero");
    let output = poseidon.run(&["run", "far", "--shell", "--", &text]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), size));
    let file = far.folder().join("pushed");
    let content = vec![7; 3 * 1024 * 1024];
    fs::write(far.folder().join("content"), &content).unwrap();
    let from = far.folder().join("content");
    let to = format!("far:{}", file.display());
    done(&poseidon, &["push", from.to_str().unwrap(), &to]);
    assert_eq!(fs::read(&file).unwrap(), content);

    // The nearest one carries both.
    assert_eq!((nodes(&near), nodes(&middle)), (2, 1));
    let shown = done(&poseidon, &["show", "far"]);
    let through = format!("http://{}", second.address);
    assert!(shown.contains(&through), "{shown}");
    let shown = poseidon.json(&["show", "far", "--json"]);
    assert!(shown.to_string().contains(&through), "{shown}");
    let status = String::from_utf8(near.run(&["status"]).stdout).unwrap();
    let line = format!("at {}, 2 of 32 connections in use", first.address);
    assert!(status.contains(&line), "{status}");
    let report = &middle.status()["relay"]["nodes"][0];
    assert!(report["up"].as_u64().unwrap() > size as u64, "{report}");
    assert!(
        report["down"].as_u64().unwrap() > content.len() as u64,
        "{report}"
    );
    // It is not in the middle of what it carries: nobody takes the one for the other.
    let whoami = |name| done(&poseidon, &["run", name, "--", "sh", "-c", "echo $PPID"]);
    assert_eq!(whoami("far").trim(), far.pid().to_string());
    assert_eq!(whoami("middle").trim(), middle.pid().to_string());

    // The end of one ends what hangs on it, and nothing else.
    assert!(middle.stop().success());
    poseidon.wait_for("far", "down");
    eventually("its connection is given up", || {
        (nodes(&near) == 0).then_some(())
    });
    assert_eq!(poseidon.wait_for("near", "up")["state"], "up");
    middle.start();
    poseidon.wait_for("far", "up");
}

#[test]
fn what_happened_while_the_relay_was_gone_arrives_later() {
    let poseidon = Poseidon::start();
    let port = Port::hold();
    let mut near = relay(&poseidon.url(), &port, "");
    let mut far = node(&poseidon.url(), port.address);
    register(&poseidon, &near, "near");
    register(&poseidon, &far, "far");
    near.start();
    far.start();
    poseidon.wait_for("far", "up");
    near.kill();
    far.wait_for_link("waiting");
    far.wait_for_log("(the proxy)");
    assert!(far.run(&["put", "meanwhile", "42"]).status.success());
    near.start();
    eventually("it arrives", || {
        let history = done(&poseidon, &["history", "far"]);
        history.contains("meanwhile").then_some(())
    });
}

#[test]
fn it_connects_to_its_own_poseidon_and_nowhere_else() {
    let fake = Fake::welcoming(support::fake::Peer::idle);
    let elsewhere = Fake::http("HTTP/1.1 200 OK\r\n\r\n");
    let port = Port::hold();
    let mut agent = relay(&fake.url, &port, "");
    agent.start();
    listens(&port);
    agent.wait_for_link("connected");
    // The look above said nothing either.
    eventually("that is counted", || {
        (agent.status()["relay"]["refused"] == 1).then_some(())
    });
    let other = place(&elsewhere.url);
    for (request, status, says) in [
        (connect(other), "403", "is not this agent's Poseidon"),
        (connect("localhost:1"), "403", "localhost:1 is not"),
        (connect("[::1]:22"), "403", "[::1]:22"),
        (connect("x"), "400", "CONNECT HOST:PORT"),
        (
            b"CONNECT a b c\r\n\r\n".to_vec(),
            "400",
            "CONNECT HOST:PORT",
        ),
        (
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "405",
            "set it as their proxy",
        ),
        (b"\x16\x03\x01\x02\x00".to_vec(), "405", "CONNECT only"),
        (b"CONNECT ".repeat(2_000), "431", "more than 8192 bytes"),
    ] {
        let answer = say(port.address, &request);
        let head = format!("HTTP/1.1 {status} ");
        assert!(
            answer.starts_with(&head) && answer.contains(says),
            "{answer}"
        );
    }
    let relay = &agent.status()["relay"];
    assert_eq!(relay["refused"], 9, "{relay}");
    let mut served = TcpStream::connect(port.address).unwrap();
    served.write_all(&connect(place(&fake.url))).unwrap();
    let mut answer = [0; 12];
    served.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn connections_are_bounded_and_what_is_too_slow_makes_room() {
    let fake = Fake::welcoming(support::fake::Peer::idle);
    let port = Port::hold();
    let limits = "connections = 2\n[connect]\nhttp_seconds = 2";
    let mut agent = relay(&fake.url, &port, limits);
    agent.start();
    listens(&port);
    agent.wait_for_link("connected");
    eventually("what looked has gone", || {
        (nodes(&agent) == 0).then_some(())
    });
    let before = agent.resources();
    // Who says nothing holds a place for as long as a request may take.
    let silent: Vec<TcpStream> = (0..2)
        .map(|_| TcpStream::connect(port.address).unwrap())
        .collect();
    eventually("both are in", || (nodes(&agent) == 2).then_some(()));
    let wanted = connect(place(&fake.url));
    let answer = say(port.address, &wanted);
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("relay.connections"),
        "{answer}"
    );
    // More of them than are told are closed, however many.
    let crowd: Vec<_> = (0..60).map(|_| TcpStream::connect(port.address)).collect();
    let status: Value = agent.status();
    assert!(nodes(&agent) <= 6, "{status}");
    drop(crowd);
    for mut stream in silent {
        let mut answer = String::new();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    let mut served = TcpStream::connect(port.address).unwrap();
    eventually("there is room", || {
        served = TcpStream::connect(port.address).ok()?;
        served.write_all(&wanted).ok()?;
        let mut answer = [0; 12];
        served.read_exact(&mut answer).ok()?;
        (&answer == b"HTTP/1.1 200").then_some(())
    });
    // It goes, and Poseidon's side does not follow: the place is given up all the same when it is gone for good.
    served.shutdown(Shutdown::Both).unwrap();
    drop(served);
    eventually("nothing is left", || {
        let (fds, threads) = agent.resources();
        (fds <= before.0 && threads <= before.1).then_some(())
    });
}

/// A connection through the relay, past the answer.
fn carried(relay: SocketAddr, to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(relay).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    stream.write_all(&connect(&to.to_string())).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "));
    stream
}

/// Reads to the end, with a pause in which all that is sent piles up on the way.
fn slowly(stream: &mut TcpStream) -> usize {
    std::thread::sleep(Duration::from_secs(1));
    let (mut count, mut piece) = (0, vec![0; 65_536]);
    loop {
        match stream.read(&mut piece).unwrap() {
            0 => return count,
            n => count += n,
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_was_sent_before_an_end_arrives_however_slowly_it_is_taken() {
    const SIZE: usize = 6_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (to, port) = (listener.local_addr().unwrap(), Port::hold());
    let mut agent = relay(&format!("ws://{to}/"), &port, "");
    agent.start();
    // The relay's own connection, without which it carries nothing.
    let own = tungstenite::accept(listener.accept().unwrap().0).unwrap();
    agent.wait_for_link("connected");
    listens(&port);

    let mut near = carried(port.address, to);
    let (mut far, _) = listener.accept().unwrap();
    // Its half has ended before all of the answer comes.
    near.shutdown(Shutdown::Write).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
    let writer = std::thread::spawn(move || far.write_all(&vec![b'x'; SIZE]).unwrap());
    assert_eq!(slowly(&mut near), SIZE);
    writer.join().unwrap();

    // The same the other way round.
    let mut near = carried(port.address, to);
    let (mut far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(support::PATIENCE)).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(near.read(&mut [0]).unwrap(), 0);
    let writer = std::thread::spawn(move || near.write_all(&vec![b'y'; SIZE]).unwrap());
    assert_eq!(slowly(&mut far), SIZE);
    writer.join().unwrap();
    drop(own);
}

#[test]
fn without_poseidon_or_an_address_it_says_so_and_goes_on() {
    // No way is tried for others that the relay itself has not gone.
    let (port, mut poseidon) = (Port::hold(), Poseidon::on_a_held_port(&[]));
    let mut agent = relay(&poseidon.url(), &port, "");
    register(&poseidon, &agent, "near");
    poseidon.kill();
    agent.start();
    listens(&port);
    let wanted = connect(poseidon.address());
    let answer = say(port.address, &wanted);
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("has not been connected"),
        "{answer}"
    );
    poseidon.launch();
    agent.wait_for_link("connected");
    poseidon.kill();
    let answer = say(port.address, &wanted);
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("tcp: "),
        "{answer}"
    );
    // Who is behind it learns why.
    let mut far = node(&poseidon.url(), port.address);
    far.start();
    let log = far.wait_for_log("502");
    assert!(
        log.contains("it says: Poseidon is not reached from here"),
        "{log}"
    );
    far.kill();
    // An orderly end with somebody connected and silent.
    let _silent = TcpStream::connect(port.address).unwrap();
    eventually("it is in", || (nodes(&agent) == 1).then_some(()));
    assert!(agent.stop().success());

    // The address is taken: by a test, here; on a router it is not there yet.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = agent.folder().join("triton.toml");
    let at = taken.local_addr().unwrap();
    fs::write(&file, format!("[relay]\nlisten = \"{at}\"\n")).unwrap();
    agent.start();
    agent.wait_until_it_serves();
    let status = eventually("it is told", || {
        let status = String::from_utf8(agent.run(&["status"]).stdout).unwrap();
        status.contains("cannot listen at").then_some(status)
    });
    assert!(
        status.contains("relay.listen") && status.contains("trying again"),
        "{status}"
    );
    drop(taken);
    agent.wait_for_log("other agents reach Poseidon at");
    std::thread::sleep(Duration::from_millis(50));
    assert!(agent.ended().is_none());
}

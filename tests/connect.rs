//! Connecting without TLS: every phase against real sockets.
#![allow(missing_docs)]

#[path = "support/link.rs"]
mod support;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use support::*;
use triton::link::{
    Incoming, Kind, LinkError, Options, Outcome, Phase, ProxySource, Resolver, connect,
};
use triton::sys::wake::Wake;
use tungstenite::handshake::derive_accept_key;

fn url(address: SocketAddr) -> String {
    format!("ws://{address}/triton")
}

/// An address where nobody listens.
fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A listener whose queue is full: the kernel drops what comes, as a dead host would.
#[allow(unsafe_code)]
fn dead() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // SAFETY: no pointers; listening again only changes the length of the queue.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, SHORT) {
        queued.push(stream);
    }
    (address, listener, queued)
}

#[test]
fn it_connects_and_speaks_with_tungstenite() {
    let address = serve(echo);
    let mut steps = Vec::new();
    let options = options(&[&format!("ws://poseidon.test:{}/", address.port())]);
    let mut connection = go_with(&options, &mut resolver(), &mut |step| {
        steps.push((step.phase, step.outcome));
    })
    .unwrap();
    let phases = [Phase::Dns, Phase::Tcp, Phase::Http];
    let expected: Vec<_> = phases
        .iter()
        .flat_map(|phase| [(*phase, Outcome::Begun), (*phase, Outcome::Done)])
        .collect();
    assert_eq!(steps, expected);
    assert_echo(&mut connection);
    connection.close(1000, "done").unwrap();
    assert!(matches!(
        next(&mut connection).unwrap(),
        Incoming::Close { code: 1000, .. }
    ));
}

#[test]
fn the_identifier_goes_into_the_header_or_the_path() {
    let (sender, requests) = mpsc::channel();
    let address = serve(move |mut stream| {
        sender.send(read_request(&mut stream)).unwrap();
    });
    let _ = go(&options(&[&url(address)]));
    let request = requests.recv().unwrap();
    assert!(request.starts_with("GET /triton HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains(&format!("Host: {address}\r\n")),
        "{request}"
    );
    assert!(
        request.contains(&format!("Authorization: Bearer {IDENTIFIER}\r\n")),
        "{request}"
    );
    assert!(request.contains(concat!(
        "User-Agent: triton/",
        env!("CARGO_PKG_VERSION"),
        "\r\n"
    )));
    let _ = go(&options(&[&format!("http://{address}/t/{{identifier}}")]));
    let request = requests.recv().unwrap();
    assert!(
        request.starts_with("GET /t/hush-hush%2F1 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(!request.contains("Authorization"), "{request}");
}

#[test]
fn an_identifier_cannot_break_the_request() {
    let address = serve(|_| panic!("connected"));
    for identifier in ["", "a\r\nx: y", "a b"] {
        let mut options = options(&[&url(address)]);
        options.identifier = triton::secret::Secret::new(identifier);
        assert_eq!(go(&options).unwrap_err().phase, Phase::Http);
    }
}

fn switching(behind: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| {
        let request = read_request(&mut stream);
        let key = request
            .split("Sec-WebSocket-Key: ")
            .nth(1)
            .unwrap()
            .split("\r\n")
            .next()
            .unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching\r\nupgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\n\
             sec-websocket-accept: {accept}\r\n\r\n"
        );
        stream
            .write_all(&[head.as_bytes(), behind].concat())
            .unwrap();
        silent(stream);
    })
}

#[test]
fn what_comes_with_the_answer_is_not_lost() {
    let address = switching(b"\x81\x03two\x81");
    let mut connection = go(&options(&[&url(address)])).unwrap();
    assert_eq!(
        connection.receive().unwrap(),
        Some(Incoming::Text("two".into()))
    );
    assert!(connection.receive().unwrap().is_none());
}

#[test]
fn garbage_after_the_upgrade_ends_the_connection() {
    // As long as the frame that its first two bytes declare.
    let address = switching(b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n");
    let mut connection = go(&options(&[&url(address)])).unwrap();
    assert!(matches!(next(&mut connection), Err(LinkError::Broken(_))));
}

#[test]
fn a_message_of_2_mb_does_not_end_the_connection() {
    let address = serve(|stream| {
        let mut socket = tungstenite::accept(stream).unwrap();
        socket.send("x".repeat(2 << 20).into()).unwrap();
        socket.send("still here".into()).unwrap();
        let _ = socket.read();
    });
    let mut connection = go(&options(&[&url(address)])).unwrap();
    assert_eq!(
        next(&mut connection).unwrap(),
        Incoming::TooLarge { size: 2 << 20 }
    );
    assert_eq!(
        next(&mut connection).unwrap(),
        Incoming::Text("still here".into())
    );
}

#[test]
fn the_answers_of_the_table() {
    for (answer, kind, text) in [
        (
            "401 Unauthorized\r\n\r\n",
            Kind::Unregistered,
            "not registered",
        ),
        (
            "403 No\r\nContent-Length: 12\r\n\r\nask an admin",
            Kind::Unregistered,
            "ask an admin",
        ),
        (
            "429 x\r\nRetry-After: 60\r\n\r\n",
            Kind::RetryAfter(Duration::from_mins(1)),
            "60 s",
        ),
        (
            "503 x\r\nRetry-After: 60\r\n\r\n",
            Kind::RetryAfter(Duration::from_mins(1)),
            "60 s",
        ),
        (
            "302 x\r\nLocation: https://else/\r\n\r\n",
            Kind::Other,
            "https://else/",
        ),
        ("500 x\r\n\r\n", Kind::Other, "500"),
        ("101 x\r\n\r\n", Kind::Other, "Upgrade"),
    ] {
        let address = answering(format!("HTTP/1.1 {answer}"));
        let error = fails(
            &options(&[&url(address)]),
            Phase::Http,
            &[text, &address.to_string()],
        );
        assert_eq!(error.kind, kind);
    }
}

#[test]
fn what_is_no_http_is_told() {
    let endless = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &vec![b'a'; 100_000]].concat();
    for (answer, text) in [
        (b"SSH-2.0-dropbear\r\n".to_vec(), "SSH-2.0-dropbear"),
        (b"\x15\x03\x01\x00\x02\x02\x16".to_vec(), "wss://"),
        (b"".to_vec(), "without an answer"),
        (b"HTTP/1.1 101 Sw".to_vec(), "in the middle"),
        (endless, "8 KiB"),
    ] {
        fails(&options(&[&url(answering(answer))]), Phase::Http, &[text]);
    }
}

#[test]
fn a_refused_connection_is_told() {
    let address = closed_port();
    fails(
        &options(&[&url(address)]),
        Phase::Tcp,
        &["refused", &address.to_string()],
    );
}

#[test]
fn an_unknown_host_is_told() {
    fails(
        &options(&["ws://nowhere.test"]),
        Phase::Dns,
        &["nowhere.test", "no such host"],
    );
}

#[test]
fn each_deadline_is_named() {
    let (dead, _listener, _queued) = dead();
    let silent = serve(silent);
    let cases: [(Options, Phase, String); 3] = [
        (
            options(&[&url(dead)]),
            Phase::Tcp,
            format!("no answer from {dead} within 300 ms"),
        ),
        (
            via(silent, "ws://a.test:81"),
            Phase::Proxy,
            format!("proxy http://{silent} within 300 ms"),
        ),
        (
            options(&[&url(silent)]),
            Phase::Http,
            format!("no answer from {silent} within 300 ms"),
        ),
    ];
    for (mut options, phase, text) in cases {
        match phase {
            Phase::Tcp => options.deadlines.tcp = SHORT,
            Phase::Proxy => options.deadlines.proxy = SHORT,
            _ => options.deadlines.http = SHORT,
        }
        fails(&options, phase, &[&text]);
    }
    let (_never, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let mut resolver = Resolver::with(crew(), move |_| {
        let _ = gate.lock().unwrap().recv();
        Err("gone".into())
    })
    .unwrap();
    let mut options = options(&["ws://slow.test"]);
    options.deadlines.dns = SHORT;
    let error = go_with(&options, &mut resolver, &mut |_| {}).unwrap_err();
    assert_eq!(error.phase, Phase::Dns);
    assert!(
        error.message.contains("about slow.test within 300 ms"),
        "{error}"
    );
}

#[test]
fn dripping_gains_no_time() {
    let address = serve(|mut stream| {
        let head = b"HTTP/1.1 101 Switching\r\nx: "
            .iter()
            .chain(std::iter::repeat(&b'a'));
        for byte in head {
            // The pace of a slow peer, not a wait for something to happen.
            std::thread::sleep(Duration::from_millis(5));
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    let start = Instant::now();
    let mut direct = options(&[&url(address)]);
    direct.deadlines.http = SHORT;
    fails(&direct, Phase::Http, &["within 300 ms"]);
    let mut proxied = via(address, "ws://a.test");
    proxied.deadlines.proxy = SHORT;
    fails(&proxied, Phase::Proxy, &["within 300 ms"]);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_addresses_of_a_host_are_tried_in_turn() {
    let address = serve(echo);
    let mut resolver = Resolver::with(crew(), |_| {
        Ok(vec![
            IpAddr::V6("::1".parse().unwrap()),
            IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)),
            LOCAL,
        ])
    })
    .unwrap();
    let mut failed = 0;
    let options = options(&[&format!("ws://many.test:{}", address.port())]);
    let connection = go_with(&options, &mut resolver, &mut |step| {
        failed += usize::from(step.outcome == Outcome::Failed);
    });
    assert_echo(&mut connection.unwrap());
    assert_eq!(failed, 2);
}

#[test]
fn the_urls_are_tried_in_turn_and_all_failures_are_told() {
    let (closed, forbidden) = (closed_port(), answering("HTTP/1.1 403 Forbidden\r\n\r\n"));
    let (url_a, url_b) = (url(closed), url(forbidden));
    let urls = [url_a.as_str(), &url_b, "ws://nowhere.test"];
    let error = fails(
        &options(&urls),
        Phase::Http,
        &["403", "tcp: ", "refused", "dns: ", "nowhere"],
    );
    assert_eq!(error.kind, Kind::Unregistered);
    let good = url(serve(echo));
    assert!(go(&options(&[&url_a, "ws://nowhere.test", &good])).is_ok());
}

fn via(proxy: SocketAddr, url: &str) -> Options {
    let mut options = options(&[url]);
    options.proxy = ProxySource::Via(format!("http://us:hush@{proxy}").parse().unwrap()).into();
    options
}

#[test]
fn a_proxy_passes_through() {
    let server = serve(echo);
    let (sender, requests) = mpsc::channel();
    let proxy = serve(move |mut client| {
        sender.send(read_request(&mut client)).unwrap();
        let server = TcpStream::connect(server).unwrap();
        client
            .write_all(b"HTTP/1.0 200 Connection established\r\n\r\n")
            .unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut &server, &mut &client);
    });
    // The proxy resolves the name, not this device.
    let mut connection = go(&via(proxy, "ws://only-the-proxy-knows.test:81/x")).unwrap();
    assert_echo(&mut connection);
    let request = requests.recv().unwrap();
    assert!(
        request.starts_with("CONNECT only-the-proxy-knows.test:81 HTTP/1.1\r\n"),
        "{request}"
    );
    // us:hush
    assert!(
        request.contains("Proxy-Authorization: Basic dXM6aHVzaA==\r\n"),
        "{request}"
    );
    assert!(!request.contains(IDENTIFIER));
}

#[test]
fn what_a_proxy_refuses_is_told() {
    let endless = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &vec![b'a'; 100_000]].concat();
    for (answer, text) in [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".to_vec(),
            "user name",
        ),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n".to_vec(), "does not allow"),
        (
            b"HTTP/1.1 502 Bad Gateway\r\n\r\n".to_vec(),
            "does not reach",
        ),
        (b"\x05\xff garbage".to_vec(), "does not speak HTTP"),
        (endless, "8 KiB"),
        (b"".to_vec(), "without an answer"),
    ] {
        let proxy = answering(answer);
        let error = fails(
            &via(proxy, "ws://a.test:81"),
            Phase::Proxy,
            &[text, &proxy.to_string()],
        );
        assert_eq!(error.kind, Kind::Other);
    }
    let closed = closed_port();
    fails(
        &via(closed, "ws://a.test"),
        Phase::Tcp,
        &["(the proxy) refused"],
    );
}

#[test]
fn a_stop_ends_every_phase_at_once() {
    let (dead, _listener, _queued) = dead();
    let silent = serve(silent);
    let (_never, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let mut resolver = Resolver::with(crew(), move |_| {
        let _ = gate.lock().unwrap().recv();
        Err("gone".into())
    })
    .unwrap();
    for (options, phase) in [
        (options(&["ws://slow.test"]), Phase::Dns),
        (options(&[&url(dead)]), Phase::Tcp),
        (via(silent, "ws://a.test"), Phase::Proxy),
        (options(&[&url(silent)]), Phase::Http),
    ] {
        let stop = Arc::new(Wake::new().unwrap());
        let start = Instant::now();
        let result = connect(&options, &mut resolver, &stop, &mut |step| {
            if step.phase == phase && step.outcome == Outcome::Begun {
                stop.ring();
            }
        });
        let error = result.unwrap_err();
        assert_eq!((error.phase, error.kind), (phase, Kind::Stopped), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_server_that_vanishes_is_noticed() {
    let address = serve(|stream| {
        let _ = tungstenite::accept(stream);
    });
    let mut connection = go(&options(&[&url(address)])).unwrap();
    assert!(matches!(next(&mut connection), Err(LinkError::Ended)));
}

#[test]
fn a_reader_that_stops_makes_the_writer_wait() {
    let (go_on, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let address = serve(move |stream| {
        let mut socket = tungstenite::accept(stream).unwrap();
        gate.lock().unwrap().recv().unwrap();
        let mut received = 0;
        while let Ok(message) = socket.read() {
            received += message.len();
            if message.len() == 3 {
                socket.send(received.to_string().into()).unwrap();
            }
        }
    });
    let mut connection = go(&options(&[&url(address)])).unwrap();
    let piece = "x".repeat(32 * 1024);
    let mut sent = 0;
    while !connection.wants_write() {
        connection.send(piece.clone()).unwrap();
        sent += piece.len();
        // The kernel takes what the peer's window and the bound of unsent data allow, not without end.
        assert!(sent < 64 << 20);
    }
    go_on.send(()).unwrap();
    connection.send("end".into()).unwrap();
    let expected = (sent + 3).to_string();
    assert_eq!(
        next(&mut connection).unwrap(),
        Incoming::Text(expected.into())
    );
}

#[cfg(not(any(feature = "tls", feature = "rustls")))]
#[test]
fn a_build_without_tls_says_so() {
    fails(
        &options(&[&format!("wss://{}", serve(silent))]),
        Phase::Tls,
        &["has no TLS"],
    );
}

//! What the tests of the link share: servers on port 0 and short cuts to `connect`.
#![allow(dead_code, missing_docs)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use triton::link::{
    ConnectError, Connection, Incoming, LinkError, Options, Phase, ProxySource, Resolver, Step,
    connect,
};
use triton::secret::Secret;
use triton::sys::poll::{IN, OUT, PollSet, after};
use triton::sys::wake::Wake;
use triton::thread::Crew;

pub const IDENTIFIER: &str = "hush-hush/1";
pub const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Longer than anything takes, so that only the deadline under test can end a test in time.
pub const LONG: Duration = Duration::from_mins(1);
pub const SHORT: Duration = Duration::from_millis(300);

/// Serves each connection on a thread of its own.
pub fn serve(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handler = Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handler = Arc::clone(&handler);
            std::thread::spawn(move || handler(stream));
        }
    });
    address
}

/// Takes a connection and says nothing until the client goes.
pub fn silent(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Reads a request up to its blank line.
pub fn read_request(stream: &mut impl Read) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        request.push(byte[0]);
    }
    String::from_utf8(request).unwrap()
}

/// A server that reads the request and gives this answer.
pub fn answering(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    serve(move |mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(&answer);
    })
}

/// A WebSocket server that sends back what it gets; tungstenite is the reference here.
pub fn echo<S: Read + Write>(stream: S) {
    let Ok(mut socket) = tungstenite::accept(stream) else {
        return;
    };
    while let Ok(message) = socket.read() {
        if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
            return;
        }
    }
}

/// Options without proxy and without a deadline that a test could meet.
pub fn options(urls: &[&str]) -> Options {
    let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
    let mut options = Options::new(urls, Secret::new(IDENTIFIER));
    options.proxy = ProxySource::Direct.into();
    options.deadlines.dns = LONG;
    options.deadlines.tcp = LONG;
    options.deadlines.proxy = LONG;
    options.deadlines.tls = LONG;
    options.deadlines.http = LONG;
    options
}

pub fn crew() -> Crew {
    Crew::new(|name| panic!("{name} panicked"))
}

/// A resolver that knows `poseidon.test` (127.0.0.1) and nothing else.
pub fn resolver() -> Resolver {
    Resolver::with(crew(), |host| match host {
        "poseidon.test" => Ok(vec![LOCAL]),
        _ => Err("no such host".into()),
    })
    .unwrap()
}

pub fn go(options: &Options) -> Result<Connection, ConnectError> {
    go_with(options, &mut resolver(), &mut |_| {})
}

pub fn go_with(
    options: &Options,
    resolver: &mut Resolver,
    observer: &mut dyn FnMut(Step),
) -> Result<Connection, ConnectError> {
    connect(options, resolver, &Arc::new(Wake::new().unwrap()), observer)
}

/// Connects and expects a failure in `phase` that says all of `texts` and no secret.
pub fn fails(options: &Options, phase: Phase, texts: &[&str]) -> ConnectError {
    let Err(error) = go(options) else {
        panic!("connected");
    };
    assert_eq!(error.phase, phase, "{error}");
    for text in texts {
        assert!(error.message.contains(text), "no {text:?} in: {error}");
    }
    assert!(!error.to_string().contains("hush"), "{error}");
    error
}

/// Sends and receives as the session does: one poll for both directions.
pub fn next(connection: &mut Connection) -> Result<Incoming, LinkError> {
    loop {
        connection.flush()?;
        if let Some(incoming) = connection.receive()? {
            return Ok(incoming);
        }
        let events = if connection.wants_write() {
            IN | OUT
        } else {
            IN
        };
        let mut set = PollSet::new();
        set.add(connection.fd(), events);
        assert!(set.wait(Some(after(LONG))).unwrap(), "nothing arrives");
    }
}

/// Sends texts of several sizes and expects them back.
pub fn assert_echo(connection: &mut Connection) {
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let text: String = ('a'..='z').cycle().take(size).collect();
        connection.send(text.clone()).unwrap();
        assert_eq!(next(connection).unwrap(), Incoming::Text(text.into()));
    }
}

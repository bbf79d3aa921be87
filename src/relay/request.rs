//! What a node asks for, and the answers: CONNECT of RFC 9110, section 9.3.6, and nothing else of HTTP.

use crate::link::head::{self, HeadError};
use crate::link::{Phase, Socket, authority, split_authority};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;

/// Bytes that are read at once. What is behind the request is carried on.
const CHUNK: usize = 512;
/// Bytes of a refused request that are read on, so that its sender is not cut off before it has read the answer.
const IGNORED: usize = 16 * 1024;

/// Why a node is not connected: the status for it, and the reason for both sides' operators.
pub struct Refusal {
    status: &'static str,
    pub text: String,
}

impl Refusal {
    fn new(status: &'static str, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }

    pub fn full(limit: usize) -> Self {
        let text = format!("all {limit} connections are in use (relay.connections)");
        Self::new("503 Service Unavailable", text)
    }

    pub fn stopped() -> Self {
        Self::new("503 Service Unavailable", "the relay stops")
    }

    pub fn elsewhere(host: &str, port: u16) -> Self {
        let place = authority(&head::presentable(host.as_bytes(), 80), port);
        let text = format!(
            "{place} is not this agent's Poseidon: the url has to be the same on both devices"
        );
        Self::new("403 Forbidden", text)
    }

    pub fn unknown() -> Self {
        let text = "the relay itself has not been connected to this url: see 'triton status' there";
        Self::new("502 Bad Gateway", text)
    }

    pub fn unreachable(phase: Phase, message: &str) -> Self {
        let text = format!("Poseidon is not reached from here: {phase}: {message}");
        Self::new("502 Bad Gateway", text)
    }

    /// As it goes over the wire.
    pub fn answer(&self) -> String {
        let Self { status, text } = self;
        let allow = if status.starts_with("405") {
            "Allow: CONNECT\r\n"
        } else {
            ""
        };
        format!(
            "HTTP/1.1 {status}\r\n{allow}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}\n",
            text.len() + 1
        )
    }

    /// Sends it, and waits for the other side to have it, as long as `near` has patience.
    pub fn send(&self, near: &mut Socket) {
        // Whoever does not take it has gone, or does not want it.
        if near.write_all(self.answer().as_bytes()).is_ok()
            && near.tcp().shutdown(Shutdown::Write).is_ok()
        {
            let mut ignored = [0; CHUNK];
            for _ in 0..IGNORED / CHUNK {
                if !matches!(near.read(&mut ignored), Ok(n) if n > 0) {
                    break;
                }
            }
        }
    }
}

/// Host and port that are asked for, and what came behind the request.
pub fn read(near: &mut Socket) -> Result<(String, u16, Vec<u8>), Refusal> {
    let (bytes, rest) = head::read_bytes(near, CHUNK, b"CONNECT ").map_err(|e| match e {
        HeadError::NotHttp(seen) => {
            let text = format!(
                "this is a relay for Triton agents, which set it as their proxy; it knows CONNECT only, and this began with {seen:?}"
            );
            Refusal::new("405 Method Not Allowed", text)
        }
        HeadError::TooLong => Refusal::new(
            "431 Request Header Fields Too Large",
            format!("the request has more than {} bytes", head::HEAD_LIMIT),
        ),
        HeadError::Ended(_) => Refusal::new("400 Bad Request", "it went before its request was whole"),
        HeadError::Io(e) => Refusal::new("408 Request Timeout", format!("no whole request: {e}")),
    })?;
    let (host, port) = wanted(&bytes).ok_or_else(|| {
        Refusal::new(
            "400 Bad Request",
            "the request is not CONNECT HOST:PORT HTTP/1.1",
        )
    })?;
    Ok((host, port, rest))
}

/// From `CONNECT host:port HTTP/1.1`.
fn wanted(head: &[u8]) -> Option<(String, u16)> {
    let head = std::str::from_utf8(head).ok()?;
    let mut words = head.lines().next()?.split(' ');
    let (_, place, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    split_authority(place, 0)
        .ok()
        .filter(|(_, port)| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_reads_the_first_line() {
        for (line, place) in [
            ("CONNECT a.example:443 HTTP/1.1", Some(("a.example", 443))),
            ("CONNECT [::1]:80 HTTP/1.0", Some(("::1", 80))),
            ("CONNECT a.example HTTP/1.1", None),
            ("CONNECT a:0 HTTP/1.1", None),
            ("CONNECT a:1 HTTP/2", None),
            ("CONNECT a:1", None),
            ("CONNECT a:1 b HTTP/1.1", None),
            ("CONNECT  HTTP/1.1", None),
            ("CONNECT wss://a:1/ HTTP/1.1", None),
        ] {
            let head = format!("{line}\r\nHost: x\r\n\r\n");
            let found = wanted(head.as_bytes());
            let found = found.as_ref().map(|(host, port)| (host.as_str(), *port));
            assert_eq!(found, place, "{line}");
        }
    }

    #[test]
    fn an_answer_is_one_head_and_its_text() {
        let answer = Refusal::elsewhere("a\r\nx: y", 1).answer();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
        assert!(head.ends_with("Connection: close") && !text.trim_end().contains('\n'));
        assert!(head.contains(&format!("Content-Length: {}\r\n", text.len())));
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(head in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = wanted(&head);
            let _ = wanted(&[b"CONNECT ", &head[..]].concat());
        }
    }
}

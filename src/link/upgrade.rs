//! The upgrade from HTTP to WebSocket, and what the server's other answers mean.

use super::head::{self, Head, HeadError, presentable};
use super::stream::{Patience, Stream};
use super::target::percent_encode;
use super::{ConnectError, Kind, Options, PLACEHOLDER, Phase, Target, retry_after, spoken};
use std::io;
use std::time::{Duration, Instant, SystemTime};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

/// Bytes of an error's body that are read.
const BODY_LIMIT: usize = 1024;
/// Characters of it that are shown.
const BODY_SHOWN: usize = 200;
/// How long to wait for a body that did not come with its head. It is a courtesy to the reader of the log.
const BODY_PATIENCE: Duration = Duration::from_millis(300);

/// Why there is no WebSocket.
pub enum Failure {
    /// Reading or writing failed; the walk knows how to say it.
    Io(io::Error),
    /// The server gave another answer. Other addresses of it will not be asked.
    Answered(ConnectError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Asks for a WebSocket. Returns the bytes that the server sent behind its answer, and its challenge, if it has one.
pub fn upgrade(
    stream: &mut dyn Stream,
    target: &Target,
    options: &Options,
    patience: &Patience,
) -> Result<(Vec<u8>, Option<String>), Failure> {
    let key = generate_key();
    stream.write_all(request(target, options, &key).as_bytes())?;
    stream.flush()?;
    let (head, tail) = head::read(stream, 1024).map_err(|error| match error {
        HeadError::Io(error) => Failure::Io(error),
        error => failed(explain_head(&error)),
    })?;
    if head.status == 101 {
        return match wrong_switch(&head, &key) {
            None => Ok((tail, head.get("triton-challenge").map(str::to_owned))),
            Some(why) => Err(failed(format!(
                "the server switches protocols, but not to this WebSocket: {why}"
            ))),
        };
    }
    let body = read_body(stream, &head, tail, patience);
    let error = refusal(&head, &body, options.identifier.reveal(), SystemTime::now());
    Err(Failure::Answered(error))
}

fn failed(message: String) -> Failure {
    Failure::Answered(ConnectError::new(Phase::Http, message))
}

fn request(target: &Target, options: &Options, key: &str) -> String {
    let identifier = options.identifier.reveal();
    let authorization = if target.has_placeholder() {
        String::new()
    } else {
        format!("Authorization: Bearer {identifier}\r\n")
    };
    let device_key = match &options.device_key {
        Some(key) => format!("Triton-Key: {key}\r\n"),
        None => String::new(),
    };
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nUser-Agent: {}\r\n{device_key}{authorization}\r\n",
        target.request_path(identifier),
        target.host_header(),
        options.user_agent,
    )
}

/// What an HTTP answer was not, in words.
pub(super) fn explain_head(error: &HeadError) -> String {
    match error {
        HeadError::Io(error) => format!("the connection broke: {error}"),
        HeadError::Ended(false) => {
            "the connection was closed without an answer: is the port right, and is it wss:// there?".into()
        }
        HeadError::Ended(true) => "the connection was closed in the middle of the answer".into(),
        HeadError::TooLong => {
            format!("the head of the answer is longer than {} KiB", head::HEAD_LIMIT / 1024)
        }
        // A TLS alert begins with the byte 21.
        HeadError::NotHttp(seen) => format!(
            "what answers there does not speak HTTP (it says {seen:?}): is the port right, and is it wss:// there?"
        ),
    }
}

/// What is wrong with a 101, if anything.
fn wrong_switch(head: &Head, key: &str) -> Option<&'static str> {
    let expected = derive_accept_key(key.as_bytes());
    if !head.has_token("upgrade", "websocket") {
        Some("the Upgrade header is missing or another")
    } else if !head.has_token("connection", "upgrade") {
        Some("the Connection header does not say Upgrade")
    } else if head.get("sec-websocket-accept") != Some(expected.as_str()) {
        Some("Sec-WebSocket-Accept does not fit the request, as if the answer came from a cache")
    } else if head.get("sec-websocket-extensions").is_some() {
        Some("it uses an extension that was not asked for")
    } else if head.get("sec-websocket-protocol").is_some() {
        Some("it uses a subprotocol that was not asked for")
    } else {
        None
    }
}

/// As much of what follows the head as is shown.
pub(super) fn read_body(
    stream: &mut dyn Stream,
    head: &Head,
    tail: Vec<u8>,
    patience: &Patience,
) -> Vec<u8> {
    let mut body = tail;
    let declared = head
        .get("content-length")
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    let wanted = BODY_LIMIT.min(declared);
    stream.set_patience(Some(Patience {
        deadline: patience.deadline.min(Instant::now() + BODY_PATIENCE),
        stop: patience.stop.clone(),
    }));
    let mut piece = [0; 512];
    while body.len() < wanted {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(n) => body.extend_from_slice(&piece[..n]),
        }
    }
    body.truncate(BODY_LIMIT);
    body
}

/// What an answer other than 101 means: the table of `docs/protocol.md`, section 2.
fn refusal(head: &Head, body: &[u8], identifier: &str, now: SystemTime) -> ConnectError {
    let mut kind = Kind::Other;
    let meaning = match head.status {
        401 | 403 => {
            kind = Kind::Unregistered;
            "this device is not registered there (yet): approve it in Poseidon (`poseidon pending`), or register \
             the identifier that `triton identifier` shows (`poseidon register`)"
                .to_owned()
        }
        429 | 503 => {
            let wait = head
                .get("retry-after")
                .and_then(|value| retry_after::parse(value, head.get("date"), now));
            match wait {
                Some(wait) => {
                    kind = Kind::RetryAfter(wait);
                    format!("it asks to come back in {}", spoken(wait))
                }
                None => "it is busy".to_owned(),
            }
        }
        300..=399 => match head.get("location") {
            Some(location) => format!(
                "it redirects to {}; Triton does not follow, so put the right URL into the configuration",
                presentable(masked(location, identifier).as_bytes(), BODY_SHOWN)
            ),
            None => "it redirects; Triton does not follow".to_owned(),
        },
        404 => "is the path of the URL right?".to_owned(),
        200..=299 | 400 | 405 | 426 => {
            "it offers no WebSocket there: is the path of the URL right?".to_owned()
        }
        502 | 504 => "the gateway in front of it does not reach Poseidon".to_owned(),
        _ => "something is wrong on the server".to_owned(),
    };
    let mut message = format!("the server answered {}: {meaning}", head.status_line());
    message.push_str(&said(head, body, identifier));
    ConnectError {
        phase: Phase::Http,
        kind,
        message,
    }
}

/// The server's own words, for the end of a message; `secret` is not in them.
pub(super) fn said(head: &Head, body: &[u8], secret: &str) -> String {
    // A page made for a browser says nothing here.
    let is_page = head
        .get("content-type")
        .is_some_and(|kind| kind.contains("html"));
    let body = presentable(
        masked(&String::from_utf8_lossy(body), secret).as_bytes(),
        BODY_SHOWN,
    );
    if is_page || body.is_empty() {
        return String::new();
    }
    format!(" (it says: {body})")
}

/// A server may repeat the request, and with it the identifier.
fn masked(text: &str, identifier: &str) -> String {
    if identifier.is_empty() {
        return text.to_owned();
    }
    text.replace(identifier, PLACEHOLDER)
        .replace(&percent_encode(identifier), PLACEHOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(head: &str, body: &str) -> ConnectError {
        let (head, _) = head::read(&mut format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), 64).unwrap();
        refusal(&head, body.as_bytes(), "hush/hush", SystemTime::now())
    }

    #[test]
    fn the_table_of_answers() {
        for (head, kind, text) in [
            ("401 Unauthorized", Kind::Unregistered, "triton identifier"),
            ("403 Forbidden", Kind::Unregistered, "403 Forbidden"),
            (
                "429 Slow\r\nRetry-After: 7",
                Kind::RetryAfter(Duration::from_secs(7)),
                "in 7 s",
            ),
            (
                "503 Busy\r\nRetry-After: 9999",
                Kind::RetryAfter(retry_after::LIMIT),
                "3600 s",
            ),
            ("503 Busy", Kind::Other, "busy"),
            (
                "302 Found\r\nLocation: https://b/hush/hush",
                Kind::Other,
                "https://b/{identifier};",
            ),
            (
                "308 Moved\r\nlocation: /hush%2Fhush",
                Kind::Other,
                "/{identifier};",
            ),
            ("404 Not Found", Kind::Other, "path"),
            ("200 OK", Kind::Other, "no WebSocket"),
            ("502 Bad Gateway", Kind::Other, "gateway"),
            ("500 Oops", Kind::Other, "500 Oops"),
        ] {
            let error = answer(head, "");
            assert_eq!(error.kind, kind, "{head}");
            assert!(error.message.contains(text), "{error}");
            assert!(!error.message.contains("hush"), "{error}");
        }
    }

    #[test]
    fn the_body_is_shown_clean_and_short() {
        let error = answer(
            "500 x",
            &format!("no\nhush/hush\x1b[1m {}", "a".repeat(500)),
        );
        assert!(
            error.message.contains("(it says: no {identifier} [1m aaa"),
            "{error}"
        );
        assert!(error.message.chars().count() < 350, "{error}");
        let error = answer("500 x\r\nContent-Type: text/html", "<p>");
        assert!(!error.message.contains("<p>"), "{error}");
    }
}

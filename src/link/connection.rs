//! A WebSocket connection, non-blocking: tungstenite with this project's bounds around it.

use super::connect::Route;
use super::stream::Stream;
use crate::message::DEFAULT_LIMIT;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message, Utf8Bytes, WebSocket};

pub use tungstenite::protocol::Role;

/// Read in one go; tungstenite's own 128 KiB are allocated at once and too much for a router.
const READ_BUFFER: usize = 8 * 1024;
/// A message over the limit is read and refused with an answer up to so many times the limit. Beyond it the
/// connection is closed: tungstenite cannot pass over a frame that it does not read.
const HARD_LIMIT: usize = 4;

/// What a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A whole text message of at most the limit.
    Text(Utf8Bytes),
    /// A text message over the limit. It was passed over, the connection lives.
    TooLarge {
        /// Its bytes.
        size: usize,
    },
    /// A text message that is not UTF-8. It was passed over, the connection lives.
    NotText,
    /// A binary message, which Triton has no use for.
    Binary,
    /// A ping. Its answer is already queued.
    Ping,
    /// The answer to a ping.
    Pong,
    /// The peer closes. The answer is queued: [`Connection::flush`], then drop the connection.
    Close {
        /// Why, as a number: 1000 normal, 1001 going away, 1005 none given.
        code: u16,
        /// Why, in words.
        reason: String,
    },
}

/// Why a connection has come to its end.
#[derive(Debug)]
pub enum LinkError {
    /// The peer is gone without a close frame, or after it.
    Ended,
    /// A message so large that it was not read. A close frame with code 1009 is queued.
    TooLarge(usize),
    /// Reading or writing failed.
    Io(io::Error),
    /// The peer broke the framing. A close frame with code 1002 is queued.
    Broken(String),
    /// More waits to be sent than two messages at the limit: the caller did not heed
    /// [`Connection::wants_write`].
    Full,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the server has gone without saying why"),
            Self::TooLarge(size) => write!(
                f,
                "the server sent {size} bytes in one message, more than {HARD_LIMIT} times the limit"
            ),
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::Broken(what) => write!(f, "the server broke the WebSocket protocol: {what}"),
            Self::Full => f.write_str("too much waits to be sent"),
        }
    }
}

impl std::error::Error for LinkError {}

/// A WebSocket.
///
/// The owner polls [`Connection::fd`] for input, and for output too while [`Connection::wants_write`]. poll(2)
/// does not see what TLS or tungstenite have already read: call [`Connection::receive`] until it returns `None`
/// before each poll, and once after connecting.
pub struct Connection {
    socket: WebSocket<Box<dyn Stream>>,
    limit: usize,
    /// The rest of a message that is no text is on its way: tungstenite has forgotten its beginning.
    passing_over: bool,
    /// Something may wait in a buffer of tungstenite's or of TLS.
    unsent: bool,
    peer: String,
    challenge: Option<String>,
    route: Option<Route>,
}

impl Connection {
    /// A connection over a stream that is past the HTTP upgrade and non-blocking. Text messages may have up to
    /// `limit` bytes.
    pub fn from_stream(stream: Box<dyn Stream>, role: Role, limit: usize) -> Self {
        Self::from_partially_read(stream, Vec::new(), role, limit)
    }

    /// The same, with bytes that were read behind the upgrade.
    pub(super) fn from_partially_read(
        stream: Box<dyn Stream>,
        input: Vec<u8>,
        role: Role,
        limit: usize,
    ) -> Self {
        let hard = limit.saturating_mul(HARD_LIMIT);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            // What is sent is bounded by what any peer takes, not by what is taken here: a record has to get through.
            .max_write_buffer_size(limit.max(DEFAULT_LIMIT).saturating_mul(2))
            .max_message_size(Some(hard))
            .max_frame_size(Some(hard));
        Self {
            socket: WebSocket::from_partially_read(stream, input, role, Some(config)),
            limit,
            passing_over: false,
            unsent: false,
            peer: String::new(),
            challenge: None,
            route: None,
        }
    }

    /// A client and a server in memory, joined by a socket pair: for tests of what stands above.
    pub fn pair(limit: usize) -> io::Result<(Self, Self)> {
        let (client, server) = UnixStream::pair()?;
        client.set_nonblocking(true)?;
        server.set_nonblocking(true)?;
        Ok((
            Self::from_stream(Box::new(client), Role::Client, limit),
            Self::from_stream(Box::new(server), Role::Server, limit),
        ))
    }

    pub(super) fn set_route(&mut self, route: Route, challenge: Option<String>) {
        self.peer = route.to_string();
        self.route = Some(route);
        self.challenge = challenge;
    }

    /// The way that it took; none where it is a test's.
    pub fn route(&self) -> Option<&Route> {
        self.route.as_ref()
    }

    /// What the server asks the device's key to sign.
    pub fn challenge(&self) -> Option<&str> {
        self.challenge.as_deref()
    }

    /// URL and address of the peer, for the log and `triton status`. Empty where there is none.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// What to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }

    /// The next thing that the peer sent; `None` where nothing more has arrived.
    pub fn receive(&mut self) -> Result<Option<Incoming>, LinkError> {
        loop {
            let message = match self.socket.read() {
                Ok(message) => message,
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::Interrupted => continue,
                // RFC 6455 would have the connection failed; here the sender learns what was wrong with it.
                Err(Error::Utf8(_)) => {
                    self.passing_over = true;
                    return Ok(Some(Incoming::NotText));
                }
                Err(Error::Protocol(ProtocolError::UnexpectedContinueFrame))
                    if self.passing_over =>
                {
                    continue;
                }
                Err(error) => return Err(self.fail(error)),
            };
            if matches!(message, Message::Text(_) | Message::Binary(_)) {
                self.passing_over = false;
            }
            return Ok(Some(match message {
                Message::Text(text) if text.len() > self.limit => {
                    Incoming::TooLarge { size: text.len() }
                }
                Message::Text(text) => Incoming::Text(text),
                Message::Binary(_) => Incoming::Binary,
                Message::Ping(_) => {
                    self.unsent = true;
                    Incoming::Ping
                }
                Message::Pong(_) => Incoming::Pong,
                Message::Close(frame) => {
                    self.unsent = true;
                    let frame = frame.unwrap_or(CloseFrame {
                        code: CloseCode::Status,
                        reason: Utf8Bytes::default(),
                    });
                    Incoming::Close {
                        code: frame.code.into(),
                        reason: frame.reason.as_str().to_owned(),
                    }
                }
                // tungstenite gives frames to writers only.
                Message::Frame(_) => continue,
            }));
        }
    }

    /// What an error means; the peer is told where it is its fault.
    fn fail(&mut self, error: Error) -> LinkError {
        match error {
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => LinkError::Ended,
            // TLS that ends without its own farewell.
            Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => LinkError::Ended,
            Error::Io(error) => LinkError::Io(error),
            Error::WriteBufferFull(_) => LinkError::Full,
            Error::Capacity(CapacityError::MessageTooLong { size, .. }) => {
                let _ = self.close(1009, "the message is too large");
                LinkError::TooLarge(size)
            }
            other => {
                let _ = self.close(1002, "");
                LinkError::Broken(other.to_string())
            }
        }
    }

    /// Sends a text message, or queues what cannot be sent now: then [`Connection::wants_write`] holds, and
    /// nothing more should be sent until [`Connection::flush`] has returned true.
    pub fn send(&mut self, text: String) -> Result<(), LinkError> {
        self.write(Message::text(text))
    }

    /// Sends a ping; the answer comes as [`Incoming::Pong`].
    pub fn ping(&mut self) -> Result<(), LinkError> {
        self.write(Message::Ping(Vec::new().into()))
    }

    fn write(&mut self, message: Message) -> Result<(), LinkError> {
        self.unsent = true;
        // WouldBlock means queued, not failed.
        self.settle(|socket| socket.write(message))?;
        self.flush().map(|_| ())
    }

    /// Sends a close frame, once: 1000 normal, 1001 going away. What the peer sent before it saw the frame can
    /// still be received, up to its own close.
    pub fn close(&mut self, code: u16, reason: &str) -> Result<(), LinkError> {
        self.unsent = true;
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.into(),
        };
        self.settle(|socket| socket.close(Some(frame))).map(|_| ())
    }

    /// Whether something waits to be sent: poll for output as well, then [`Connection::flush`].
    pub fn wants_write(&self) -> bool {
        self.unsent
    }

    /// Sends what waits. Returns whether all of it is out.
    pub fn flush(&mut self) -> Result<bool, LinkError> {
        if self.unsent && self.settle(WebSocket::flush)? {
            self.unsent = false;
        }
        Ok(!self.unsent)
    }

    /// Writes; false where the rest has to wait.
    fn settle(
        &mut self,
        act: impl FnOnce(&mut WebSocket<Box<dyn Stream>>) -> Result<(), Error>,
    ) -> Result<bool, LinkError> {
        match act(&mut self.socket) {
            // Closed: the closing handshake is complete, nothing more to send.
            Ok(()) | Err(Error::ConnectionClosed) => Ok(true),
            Err(Error::Io(e))
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(false)
            }
            Err(Error::Io(e)) => Err(LinkError::Io(e)),
            Err(Error::WriteBufferFull(_)) => Err(LinkError::Full),
            Err(other) => Err(LinkError::Broken(other.to_string())),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn pair() -> (Connection, Connection) {
        Connection::pair(1_000).unwrap()
    }

    fn text(incoming: Option<Incoming>) -> String {
        match incoming {
            Some(Incoming::Text(text)) => text.as_str().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_go_both_ways_and_silence_is_none() {
        let (mut client, mut server) = pair();
        assert_eq!(client.receive().unwrap(), None);
        client.send("up".into()).unwrap();
        server.send("down".into()).unwrap();
        server.ping().unwrap();
        assert_eq!(text(server.receive().unwrap()), "up");
        assert_eq!(text(client.receive().unwrap()), "down");
        assert_eq!(client.receive().unwrap(), Some(Incoming::Ping));
        assert!(client.flush().unwrap());
        assert_eq!(server.receive().unwrap(), Some(Incoming::Pong));
        assert!(!server.wants_write());
    }

    #[test]
    fn what_is_over_the_limit_or_no_text_is_passed_over() {
        let (mut client, mut server) = pair();
        server.send("x".repeat(1_001)).unwrap();
        // A text frame that is not UTF-8, written past the server's own checks.
        server
            .socket
            .get_mut()
            .write_all(&[0x81, 2, 0xC3, 0x28])
            .unwrap();
        // And one in two frames.
        server
            .socket
            .get_mut()
            .write_all(&[0x01, 2, b'a', 0xFF, 0x80, 1, b'b'])
            .unwrap();
        server.socket.write(Message::binary(vec![1])).unwrap();
        server.send("y".repeat(1_000)).unwrap();
        assert_eq!(
            client.receive().unwrap(),
            Some(Incoming::TooLarge { size: 1_001 })
        );
        assert_eq!(client.receive().unwrap(), Some(Incoming::NotText));
        assert_eq!(client.receive().unwrap(), Some(Incoming::NotText));
        assert_eq!(client.receive().unwrap(), Some(Incoming::Binary));
        assert_eq!(text(client.receive().unwrap()).len(), 1_000);
    }

    #[test]
    fn far_over_the_limit_ends_the_connection_with_a_reason() {
        let (mut client, mut server) = pair();
        // The header alone: what it declares is not allocated.
        let header = [0x81, 127, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        server.socket.get_mut().write_all(&header).unwrap();
        assert!(matches!(client.receive(), Err(LinkError::TooLarge(_))));
        let _ = client.flush();
        let Some(Incoming::Close { code, .. }) = server.receive().unwrap() else {
            panic!()
        };
        assert_eq!(code, 1009);
    }

    #[test]
    fn broken_frames_and_ends_are_told_apart() {
        let (mut client, mut server) = pair();
        server.socket.get_mut().write_all(&[0xFF; 20]).unwrap();
        assert!(matches!(client.receive(), Err(LinkError::Broken(_))));
        let (mut client, server) = pair();
        drop(server);
        assert!(matches!(client.receive(), Err(LinkError::Ended)));
        let (mut client, mut server) = pair();
        server.close(1001, "bye").unwrap();
        let Some(Incoming::Close { code, reason }) = client.receive().unwrap() else {
            panic!()
        };
        assert_eq!((code, reason.as_str()), (1001, "bye"));
        assert!(client.flush().unwrap());
    }

    #[test]
    fn a_reader_that_does_not_read_is_noticed_and_waited_for() {
        let (mut client, mut server) = pair();
        let mut sent = 0;
        while client.flush().unwrap() {
            client.send("z".repeat(900)).unwrap();
            sent += 1;
            assert!(sent < 100_000, "the socket pair takes everything");
        }
        assert!(client.wants_write());
        let mut received = 0;
        while received < sent {
            match server.receive().unwrap() {
                Some(_) => received += 1,
                None => assert!(client.flush().unwrap() || client.wants_write()),
            }
        }
        assert!(client.flush().unwrap());
    }
}

//! A WebSocket connection, non-blocking.

use super::frame::{self, CONTROL_LIMIT, Decoder, Event, Role};
use super::stream::Stream;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Read in one go. Messages grow beyond it in a buffer of their own, which is handed out with the message.
const INPUT: usize = 8 * 1024;

/// An empty output buffer that is larger than this is given back.
const KEPT_OUTPUT: usize = 16 * 1024;

/// What a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A whole text message of at most the limit, not yet checked to be UTF-8.
    Text(Vec<u8>),
    /// A text message over the limit: at least so many bytes. It is passed over, the connection lives.
    TooLarge {
        /// Bytes that the peer has declared up to now.
        size: u64,
    },
    /// A binary message, which Triton has no use for. It is passed over, the connection lives.
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
    /// Reading or writing failed.
    Io(io::Error),
    /// The peer broke the framing; a close frame with code 1002 is queued.
    Broken(&'static str),
    /// More is waiting to be sent than two messages at the limit: the caller did not heed
    /// [`Connection::wants_write`].
    Full,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the server has closed the connection"),
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::Broken(what) => write!(f, "the server broke the WebSocket protocol: {what}"),
            Self::Full => f.write_str("too much waits to be sent"),
        }
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A WebSocket.
///
/// The owner polls [`Connection::fd`] for input, and for output too while [`Connection::wants_write`]. poll(2)
/// does not see what TLS or this type have already read: call [`Connection::receive`] until it returns `None`
/// before each poll, and once after connecting.
pub struct Connection {
    stream: Box<dyn Stream>,
    role: Role,
    limit: usize,
    decoder: Decoder,
    input: Vec<u8>,
    /// How much of `input` the decoder has taken.
    taken: usize,
    output: Vec<u8>,
    /// How much of `output` the stream has taken.
    written: usize,
    /// The stream (TLS) may hold bytes that it has taken and not sent.
    unflushed: bool,
    /// The payload of the latest ping. One is enough, and no flood of pings can grow the output.
    pong: Option<Vec<u8>>,
    close_sent: bool,
    close_received: bool,
    peer: String,
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
        Self {
            stream,
            role,
            limit,
            decoder: Decoder::new(role, limit),
            input,
            taken: 0,
            output: Vec::new(),
            written: 0,
            unflushed: false,
            pong: None,
            close_sent: false,
            close_received: false,
            peer: String::new(),
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

    pub(super) fn set_peer(&mut self, peer: String) {
        self.peer = peer;
    }

    /// URL and address of the peer, for the log and `triton status`. Empty where there is none.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// What to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// The next thing that the peer sent; `None` where nothing more has arrived.
    pub fn receive(&mut self) -> Result<Option<Incoming>, LinkError> {
        loop {
            if self.close_received {
                return Err(LinkError::Ended);
            }
            let mut rest = &self.input[self.taken..];
            let event = self.decoder.decode(&mut rest);
            self.taken = self.input.len() - rest.len();
            match event {
                Ok(Some(event)) => return Ok(Some(self.handle(event)?)),
                Ok(None) => {}
                Err(broken) => {
                    self.close_received = true;
                    // The peer learns why, if it still listens.
                    let _ = self.close(1002, broken.0);
                    return Err(LinkError::Broken(broken.0));
                }
            }
            self.input.resize(INPUT, 0);
            self.taken = 0;
            let result = self.stream.read(&mut self.input);
            self.input.truncate(*result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => return Err(LinkError::Ended),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    io::ErrorKind::Interrupted => {}
                    // TLS without its farewell. Frames have lengths, so nothing is cut off unseen.
                    io::ErrorKind::UnexpectedEof => return Err(LinkError::Ended),
                    _ => return Err(error.into()),
                },
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<Incoming, LinkError> {
        Ok(match event {
            Event::Text(text) => Incoming::Text(text),
            Event::TooLarge(size) => Incoming::TooLarge { size },
            Event::Binary => Incoming::Binary,
            Event::Pong => Incoming::Pong,
            Event::Ping(payload) => {
                if !self.close_sent {
                    self.pong = Some(payload);
                    self.flush()?;
                }
                Incoming::Ping
            }
            Event::Close(code, reason) => {
                self.close_received = true;
                // Codes that must not appear in a frame are not sent back.
                let answer = match code {
                    1000..=1003 | 1007..=1014 | 3000..=4999 => code,
                    1005 => 1000,
                    _ => 1002,
                };
                let _ = self.close(answer, "");
                Incoming::Close { code, reason }
            }
        })
    }

    /// Sends a text message, or queues what cannot be sent now: then [`Connection::wants_write`] holds, and
    /// nothing more should be sent until [`Connection::flush`] has returned true.
    pub fn send(&mut self, text: &str) -> Result<(), LinkError> {
        self.push(frame::TEXT, text.as_bytes())
    }

    /// Sends a ping; the answer comes as [`Incoming::Pong`].
    pub fn ping(&mut self) -> Result<(), LinkError> {
        self.push(frame::PING, &[])
    }

    /// Sends a close frame, once: 1000 normal, 1001 going away. What the peer sent before it saw the frame can
    /// still be received, up to its own close.
    pub fn close(&mut self, code: u16, reason: &str) -> Result<(), LinkError> {
        if self.close_sent {
            return Ok(());
        }
        let mut payload = code.to_be_bytes().to_vec();
        let mut end = reason.len().min(CONTROL_LIMIT - payload.len());
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        payload.extend_from_slice(&reason.as_bytes()[..end]);
        let result = self.push(frame::CLOSE, &payload);
        self.close_sent = true;
        self.pong = None;
        result
    }

    fn push(&mut self, opcode: u8, payload: &[u8]) -> Result<(), LinkError> {
        if self.close_sent {
            return Err(LinkError::Ended);
        }
        let waiting = self.output.len() - self.written;
        if waiting > 0 && waiting + payload.len() > self.limit.saturating_mul(2).max(INPUT) {
            return Err(LinkError::Full);
        }
        self.append(opcode, payload)?;
        self.flush()?;
        Ok(())
    }

    fn append(&mut self, opcode: u8, payload: &[u8]) -> Result<(), LinkError> {
        let mask = match self.role {
            Role::Client => {
                let mut mask = [0; 4];
                getrandom::fill(&mut mask).map_err(|error| io::Error::other(error.to_string()))?;
                Some(mask)
            }
            Role::Server => None,
        };
        frame::encode(&mut self.output, opcode, payload, mask);
        Ok(())
    }

    /// Whether something waits to be sent: poll for output as well, then [`Connection::flush`].
    pub fn wants_write(&self) -> bool {
        self.unflushed || self.pong.is_some() || self.written < self.output.len()
    }

    /// Sends what waits. Returns whether all of it is out.
    pub fn flush(&mut self) -> Result<bool, LinkError> {
        loop {
            while self.written < self.output.len() {
                let result = self.stream.write(&self.output[self.written..]);
                match blocked(result)? {
                    None => return Ok(false),
                    Some(0) => return Err(LinkError::Io(io::ErrorKind::WriteZero.into())),
                    Some(n) => {
                        self.written += n;
                        self.unflushed = true;
                    }
                }
            }
            self.written = 0;
            self.output.clear();
            self.output.shrink_to(KEPT_OUTPUT);
            if let Some(payload) = self.pong.take() {
                self.append(frame::PONG, &payload)?;
                continue;
            }
            if self.unflushed {
                let result = self.stream.flush();
                if blocked(result)?.is_none() {
                    return Ok(false);
                }
                self.unflushed = false;
            }
            return Ok(true);
        }
    }
}

/// `None` where the stream would block. An interrupted call counts as such: the next poll returns at once.
fn blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.peer)
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;

//! The command's side of the socket.

use super::{Line, Lines};
use crate::error::{Error, Result};
use crate::message::{Message, payload};
use crate::sys::poll::{IN, PollSet};
use crate::sys::signal::Signals;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes read at once.
const PIECE: usize = 16 * 1024;

/// A connection to the daemon.
pub struct Client {
    stream: UnixStream,
    lines: Lines,
    limit: usize,
    path: PathBuf,
}

/// What [`Client::next`] waited for.
#[derive(Debug)]
pub enum Event {
    /// A message came.
    Message(Message),
    /// A signal came.
    Signal(i32),
    /// The deadline passed.
    TimedOut,
    /// The daemon closed the connection.
    Closed,
}

impl Client {
    /// Connects; the error says what to do when nobody listens.
    pub fn connect(path: &Path, limit: usize) -> Result<Self> {
        let stream = UnixStream::connect(path).map_err(|e| {
            let hint = match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    "is the daemon running? Start it with 'triton run', or name its socket with --socket"
                }
                io::ErrorKind::PermissionDenied => {
                    "run as root, as the daemon's user, or as a member of the configured socket_group"
                }
                _ => "see 'triton doctor'",
            };
            Error::because(
                format!("cannot reach the triton daemon at {}", path.display()),
                format!("{e}; {hint}"),
            )
        })?;
        Ok(Self {
            stream,
            lines: Lines::new(limit),
            limit,
            path: path.to_owned(),
        })
    }

    /// Sends one message.
    pub fn send(&mut self, message: &Message) -> Result<()> {
        let mut line = message
            .encode()
            .map_err(|e| Error::because("cannot send the request", e))?;
        if line.len() > self.limit {
            return Err(Error::new(format!(
                "the request has {} bytes, more than the limit of {} (limits.message_bytes)",
                line.len(),
                self.limit
            )));
        }
        line.push('\n');
        self.stream
            .write_all(line.as_bytes())
            .map_err(|e| Error::at("send to", &self.path, e))
    }

    /// Waits for a message, a signal or the deadline.
    pub fn next(&mut self, signals: Option<&Signals>, deadline: Option<Instant>) -> Result<Event> {
        loop {
            match self.lines.next_line() {
                Some(Line::Whole(line)) => {
                    let message = Message::decode(&line, self.limit)
                        .map_err(|e| Error::because("the daemon sent what is no message", e))?;
                    return Ok(Event::Message(message));
                }
                Some(Line::TooLong) => {
                    return Err(Error::new("the daemon sent a message over the limit"));
                }
                None => {}
            }
            let failed = |e| Error::at("read from", &self.path, e);
            let mut set = PollSet::new();
            let stream = set.add(self.stream.as_fd(), IN);
            if let Some(signals) = signals {
                set.add(signals.as_fd(), IN);
            }
            if !set.wait(deadline).map_err(failed)? {
                return Ok(Event::TimedOut);
            }
            if let Some(signal) = signals.and_then(Signals::next) {
                return Ok(Event::Signal(signal));
            }
            if set.ready(stream) == 0 {
                continue;
            }
            let mut piece = [0; PIECE];
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(Event::Closed),
                Ok(n) => self.lines.push(&piece[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(Event::Closed),
                Err(e) => return Err(failed(e)),
            }
        }
    }

    /// Sends a request and waits for its first answer.
    pub fn ask(&mut self, request: &Message, deadline: Instant) -> Result<Message> {
        self.send(request)?;
        loop {
            match self.next(None, Some(deadline))? {
                // A request that could not be read, such as one too long, is refused in no conversation.
                Event::Message(m)
                    if m.conversation_id == request.conversation_id || m.kind == payload::ERROR =>
                {
                    return Ok(m);
                }
                Event::Message(_) | Event::Signal(_) => {}
                Event::TimedOut => {
                    return Err(Error::new(format!(
                        "the daemon at {} does not answer",
                        self.path.display()
                    )));
                }
                Event::Closed => {
                    return Err(Error::new(format!(
                        "the daemon at {} closed the connection",
                        self.path.display()
                    )));
                }
            }
        }
    }
}

//! The byte stream below a connection: patient while it is set up, non-blocking afterwards.

use crate::sys::poll::{IN, OUT, PollSet};
use crate::sys::socket;
use crate::sys::wake::Wake;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that the kernel takes but has not sent yet. At 1 Mbit/s they are out in 0.13 s, which is how long a
/// control message waits behind output at most; on a fast path 16 KiB are refilled often enough to keep it full.
const UNSENT_LIMIT: u32 = 16 * 1024;

/// Sent data that nobody acknowledges for so long ends the connection. The session's ping usually notices
/// first; this is the belt to it, for a session that only sends.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a [`Connection`](super::Connection) reads from and writes to.
pub trait Stream: Read + Write + AsFd + Send {
    /// How long reading and writing wait. With `None` they do not wait and return `WouldBlock`.
    fn set_patience(&mut self, patience: Option<Patience>);
}

/// How long to wait: to one moment for everything, so that a peer that sends a byte now and then gains no time.
#[derive(Debug, Clone)]
pub struct Patience {
    /// When it ends.
    pub deadline: Instant,
    /// Ends it at once: a [`Wake`] that is rung and never cleared.
    pub stop: Arc<Wake>,
}

impl Patience {
    /// Waits for the descriptor. `TimedOut` where the deadline passes, `ConnectionAborted` at a stop.
    pub fn wait(&self, fd: BorrowedFd<'_>, events: i16) -> io::Result<()> {
        let mut set = PollSet::new();
        let stop = set.add(self.stop.as_fd(), IN);
        set.add(fd, events);
        if !set.wait(Some(self.deadline))? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if set.ready(stop) != 0 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// Whether the deadline has passed.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

/// Whether `stop` has been rung.
pub fn is_rung(stop: &Wake) -> bool {
    let mut set = PollSet::new();
    set.add(stop.as_fd(), IN);
    // poll(2) fails only where memory or descriptors are spent; the next step will say so.
    set.wait(Some(Instant::now())).unwrap_or(false)
}

/// A TCP connection.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    patience: Option<Patience>,
}

impl Socket {
    /// Connects within `patience`, which stays set.
    pub fn connect(address: &SocketAddr, patience: Patience) -> io::Result<Self> {
        let tcp = socket::begin_connect(address)?;
        patience.wait(tcp.as_fd(), OUT)?;
        if let Some(error) = tcp.take_error()? {
            return Err(error);
        }
        Self::of(tcp, patience)
    }

    /// One that somebody else made.
    pub fn accepted(tcp: TcpStream, patience: Patience) -> io::Result<Self> {
        tcp.set_nonblocking(true)?;
        Self::of(tcp, patience)
    }

    fn of(tcp: TcpStream, patience: Patience) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        // Comfort, not needed to work: an old kernel may lack them.
        for (name, result) in [
            (
                "the bound of unsent data",
                socket::set_unsent_limit(&tcp, UNSENT_LIMIT),
            ),
            (
                "the user time-out",
                socket::set_user_timeout(&tcp, USER_TIMEOUT),
            ),
        ] {
            if let Err(error) = result {
                log::debug!("cannot set {name} on the connection: {error}");
            }
        }
        Ok(Self {
            tcp,
            patience: Some(patience),
        })
    }

    /// The connection itself.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn patiently<T>(
        &mut self,
        events: i16,
        mut act: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match act(&mut self.tcp) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match &self.patience {
                    Some(patience) => patience.wait(self.tcp.as_fd(), events)?,
                    None => return Err(error),
                },
                // A peer that always has a byte ready never lets us wait, so the deadline counts here too.
                Ok(_) if self.patience.as_ref().is_some_and(Patience::is_over) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                result => return result,
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(IN, |tcp| tcp.read(buffer))
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(OUT, |tcp| tcp.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl Stream for Socket {
    fn set_patience(&mut self, patience: Option<Patience>) {
        self.patience = patience;
    }
}

/// For tests and in-memory peers: always without patience, the owner makes it non-blocking.
impl Stream for UnixStream {
    fn set_patience(&mut self, _: Option<Patience>) {}
}

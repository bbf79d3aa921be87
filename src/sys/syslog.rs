//! The system's log, by its socket.
//!
//! Not by syslog(3): in musl and in glibc it sends on a socket that blocks and that nobody else gets hold of, so a log
//! daemon that hangs would hang each thread with something to say. musl also writes UTC where all others write local time.

use super::clock;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where log daemons listen.
pub const SOCKET: &str = "/dev/log";

/// Facility `daemon`, in the place where a priority has it.
const DAEMON: u8 = 3 << 3;
/// Bytes of text in one datagram. With what stands before it stays below the 1024 that log daemons read.
const PIECE: usize = 900;
/// Datagrams of one message at most; what is behind is cut.
const PIECES: usize = 16;
/// How long a daemon that has much to read is waited for. Once: then nobody waits until it reads again.
const PATIENCE: Duration = Duration::from_millis(200);

/// Sends messages to a log daemon.
#[derive(Debug)]
pub struct Syslog {
    socket: UnixDatagram,
    path: PathBuf,
    ident: String,
}

impl Syslog {
    /// For messages of the program `ident` to the daemon at `path`, which need not run yet.
    pub fn new(path: &Path, ident: &str) -> io::Result<Self> {
        // Not connected: then a daemon that starts anew is found by its path as the first one was.
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            ident: format!("{ident}[{}]", std::process::id()),
        })
    }

    /// Sends a message at a level (3 error to 7 debug): each line is a datagram, a long one is several. An error says
    /// that not all of it has arrived.
    pub fn send(&self, level: u8, text: &str) -> io::Result<()> {
        let priority = DAEMON | (level & 7);
        let stamp = clock::syslog_stamp();
        for piece in pieces(text) {
            let datagram = format!("<{priority}>{stamp} {}: {piece}", self.ident);
            let sent = self.socket.send_to(datagram.as_bytes(), &self.path);
            // Whoever has been waited for in vain is not waited for again.
            let _ = self.socket.set_nonblocking(sent.is_err());
            sent?;
        }
        Ok(())
    }
}

/// A text as the lines of a log: none empty, none too long, none with characters that a terminal would obey. NUL would
/// end the message for some daemons.
fn pieces(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut piece = String::new();
        for c in line.chars() {
            if piece.len() + c.len_utf8() > PIECE {
                all.push(std::mem::take(&mut piece));
            }
            piece.push(if c.is_control() { ' ' } else { c });
        }
        if !piece.trim().is_empty() {
            all.push(piece);
        }
        if all.len() > PIECES {
            all.truncate(PIECES - 1);
            all.push("[the rest of this message is cut]".to_owned());
            break;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    struct Daemon {
        folder: tempfile::TempDir,
        socket: Option<UnixDatagram>,
    }

    impl Daemon {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self {
                folder,
                socket: None,
            }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("log")
        }

        fn start(&mut self) {
            self.socket = None;
            let _ = std::fs::remove_file(self.path());
            let socket = UnixDatagram::bind(self.path()).unwrap();
            socket.set_nonblocking(true).unwrap();
            self.socket = Some(socket);
        }

        fn read(&self) -> Option<String> {
            let mut buffer = [0; 2048];
            let n = self.socket.as_ref().unwrap().recv(&mut buffer).ok()?;
            Some(std::str::from_utf8(&buffer[..n]).unwrap().to_owned())
        }
    }

    #[test]
    fn a_message_is_as_daemons_read_it() {
        let mut daemon = Daemon::new();
        daemon.start();
        let log = Syslog::new(&daemon.path(), "triton").unwrap();
        log.send(4, "100 %s of %n\0\x1b[1m").unwrap();
        let message = daemon.read().unwrap();
        // OpenWrt's logd cuts off 16 bytes behind the priority where the last of them is a blank.
        let stamp = message.strip_prefix("<28>").unwrap().as_bytes();
        assert_eq!(
            (stamp[3], stamp[6], stamp[9], stamp[15]),
            (b' ', b' ', b':', b' '),
            "{message}"
        );
        let end = format!(" triton[{}]: 100 %s of %n  [1m", std::process::id());
        assert_eq!(&message[4 + 15..], end);
    }

    #[test]
    fn long_and_many_lines_are_bounded() {
        let mut daemon = Daemon::new();
        daemon.start();
        let log = Syslog::new(&daemon.path(), "triton").unwrap();
        log.send(6, "one\n\n  \r\ntwo\n").unwrap();
        for end in [": one", ": two"] {
            let message = daemon.read().unwrap();
            assert!(message.ends_with(end), "{message}");
        }
        assert_eq!(daemon.read(), None);
        // Two bytes a letter: no letter may be torn.
        let torn = pieces(&format!("xxx{}", "é".repeat(1000)));
        assert_eq!(torn.concat().chars().count(), 1003);
        assert!(torn.iter().all(|piece| piece.len() <= PIECE), "{torn:?}");
        for much in ["x\n".repeat(1000), "x".repeat(1_000_000)] {
            let much = pieces(&much);
            assert_eq!(much.len(), PIECES);
            assert!(much[PIECES - 1].contains("cut"));
        }
        assert_eq!(pieces("").len(), 0);
    }

    #[test]
    fn a_daemon_that_is_away_or_hangs_costs_an_error_and_little_time() {
        let mut daemon = Daemon::new();
        let log = Syslog::new(&daemon.path(), "triton").unwrap();
        assert_eq!(
            log.send(6, "x").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        daemon.start();
        log.send(6, "first").unwrap();
        // Nobody reads: its queue fills up. A thousand messages would wait for minutes if each had its patience.
        let begun = Instant::now();
        let failed = (0..5000)
            .filter(|n| log.send(6, &n.to_string()).is_err())
            .count();
        assert!(failed > 1000, "{failed}");
        assert!(begun.elapsed() < PATIENCE * 50, "{:?}", begun.elapsed());
        while daemon.read().is_some() {}
        log.send(6, "it reads again").unwrap();
        assert!(daemon.read().unwrap().ends_with("it reads again"));
        // Another process at the same path.
        daemon.start();
        log.send(6, "found again").unwrap();
        assert!(daemon.read().unwrap().ends_with("found again"));
    }
}

//! The syslog listener: datagrams over UDP and at a path.

use super::gate::Gate;
use super::{Event, Events, Ready};
use crate::cef::syslog;
use crate::sys::user;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Datagrams of one socket that are taken before the other and the rest have their turn.
const TURN: usize = 64;
/// Bytes behind a line: its end, and the NUL of some senders.
const SLACK: usize = 3;

/// Where datagrams come in.
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram, PathBuf, u64),
}

/// One place to listen at, there or not.
pub struct Listener {
    at: Place,
    socket: Option<Socket>,
    /// As `agent.status` names it.
    pub name: String,
    /// Why it is not there.
    pub problem: Option<String>,
}

/// What the settings say.
pub enum Place {
    /// `events.syslog_udp`
    Udp(SocketAddr),
    /// `events.syslog_unix`, and the group that may send.
    Unix(PathBuf, Option<String>),
}

impl Listener {
    /// One that does not listen yet.
    pub fn new(at: Place) -> Self {
        let name = match &at {
            Place::Udp(address) => format!("udp {address}"),
            Place::Unix(path, _) => format!("unix {}", path.display()),
        };
        Self {
            at,
            socket: None,
            name,
            problem: None,
        }
    }

    /// Listens, if it does not yet; false where it cannot.
    pub fn open(&mut self) -> bool {
        if self.socket.is_some() {
            return true;
        }
        let opened = match &self.at {
            Place::Udp(address) => bind_udp(*address).inspect(|socket| {
                // With port 0 the system chooses.
                if let (Socket::Udp(socket), 0) = (socket, address.port())
                    && let Ok(address) = socket.local_addr()
                {
                    self.name = format!("udp {address}");
                }
            }),
            Place::Unix(path, group) => bind_unix(path, group.as_deref()),
        };
        match opened {
            Ok(socket) => {
                log::info!("events: listening for syslog at {}", self.name);
                self.socket = Some(socket);
                self.problem = None;
            }
            Err(why) => {
                if self.problem.as_ref() != Some(&why) {
                    log::error!("events: cannot listen at {}: {why}; trying on", self.name);
                }
                self.problem = Some(why);
            }
        }
        self.socket.is_some()
    }

    /// What to wait for.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(|socket| match socket {
            Socket::Udp(socket) => socket.as_fd(),
            Socket::Unix(socket, ..) => socket.as_fd(),
        })
    }

    /// Takes what has come, as far as one turn goes.
    pub fn take(&mut self, events: &Events, gate: &mut Gate, buffer: &mut Vec<u8>) {
        let Some(socket) = &self.socket else {
            return;
        };
        buffer.resize(events.line_bytes + SLACK + 1, 0);
        let mut ready: Vec<Ready> = Vec::new();
        let mut broken = None;
        for _ in 0..TURN {
            let received = match socket {
                Socket::Udp(socket) => socket
                    .recv_from(buffer)
                    .map(|(n, from)| (n, Some(from.ip().to_canonical()))),
                Socket::Unix(socket, ..) => socket.recv(buffer).map(|n| (n, None)),
            };
            match received {
                Ok((n, from)) => ready.extend(one(events, gate, &buffer[..n], from)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => {
                    broken = Some(e.to_string());
                    break;
                }
            }
        }
        if let Some(why) = broken {
            log::error!("events: {} fails: {why}; listening anew soon", self.name);
            self.socket = None;
            self.problem = Some(why);
        }
        let count = ready.len() as u64;
        if let Err(error) = events.put_all(ready) {
            events.refuse(count, error.message);
        }
    }
}

/// What is stored of a datagram, if it is an event that may come in.
fn one(events: &Events, gate: &mut Gate, bytes: &[u8], from: Option<IpAddr>) -> Option<Ready> {
    let end = bytes.iter().rposition(|b| !matches!(b, b'\n' | b'\r' | 0));
    let bytes = &bytes[..end.map_or(0, |at| at + 1)];
    let Ok(line) = std::str::from_utf8(bytes) else {
        if gate.lets_in(from, Instant::now()) {
            events.refuse(1, "it is not UTF-8".to_owned());
        } else {
            events.tally().limited += 1;
        }
        return None;
    };
    if syslog::find(line).is_none() {
        events.tally().not_cef += 1;
        return None;
    }
    if !gate.lets_in(from, Instant::now()) {
        events.tally().limited += 1;
        return None;
    }
    let source = match from {
        Some(address) => format!("syslog/{address}"),
        None => "syslog/unix".to_owned(),
    };
    // Where no prefix names the host, it is who has sent it.
    let away = from.filter(|a| !a.is_loopback()).map(|a| a.to_string());
    let event = Event {
        line: line.to_owned(),
        ..Event::default()
    };
    let checked = events.check(&source, &event, away.as_deref());
    checked
        .map_err(|error| events.refuse(1, format!("{source}: {}", error.message)))
        .ok()
}

fn bind_udp(address: SocketAddr) -> Result<Socket, String> {
    let socket = UdpSocket::bind(address).map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::AddrInUse => {
                "; another syslog daemon listens there, choose another port in events.syslog_udp"
            }
            io::ErrorKind::AddrNotAvailable => "; this device does not have that address (yet)",
            io::ErrorKind::PermissionDenied => {
                "; ports below 1024 are root's, choose another in events.syslog_udp"
            }
            _ => "",
        };
        format!("{e}{hint}")
    })?;
    socket.set_nonblocking(true).map_err(|e| e.to_string())?;
    Ok(Socket::Udp(socket))
}

/// 0600, or 0660 for the group that may use the local socket too. What a dead agent left behind is replaced; one that
/// somebody listens at is not.
fn bind_unix(path: &Path, group: Option<&str>) -> Result<Socket, String> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(
                "something else is there; remove it, or name another path in events.syslog_unix"
                    .to_owned(),
            );
        }
        Ok(_) => {
            let probe = UnixDatagram::unbound().and_then(|probe| probe.connect(path));
            if probe.is_ok() {
                return Err("another process listens there; stop it, or name another path in events.syslog_unix".to_owned());
            }
        }
        Err(_) => {}
    }
    let gid = match group {
        None => None,
        Some(name) => user::lookup(None, Some(name))
            .map_err(|e| e.to_string())?
            .map(|identity| identity.gid),
    };
    // Bound under another name and renamed when its mode is right.
    let temporary = path.with_extension(format!("{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let bind = || {
        let socket = UnixDatagram::bind(&temporary)?;
        if let Some(gid) = gid {
            std::os::unix::fs::chown(&temporary, None, Some(gid))?;
        }
        let mode = if gid.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
        socket.set_nonblocking(true)?;
        fs::rename(&temporary, path)?;
        let inode = fs::symlink_metadata(path)?.ino();
        Ok(Socket::Unix(socket, path.to_owned(), inode))
    };
    bind().map_err(|e: io::Error| {
        let _ = fs::remove_file(&temporary);
        e.to_string()
    })
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Self::Unix(_, path, inode) = self
            && fs::symlink_metadata(&*path).is_ok_and(|m| m.ino() == *inode)
        {
            let _ = fs::remove_file(path);
        }
    }
}

//! What a service manager is told (`sd_notify(3)`): that the agent is ready, what it does, that it lives.
//!
//! Without `NOTIFY_SOCKET` in the environment (procd, a terminal) all of it is silent.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a message may wait for a manager that does not read.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest status, in bytes: it is shown in one line.
const STATUS_LIMIT: usize = 400;

/// The way to the service manager.
#[derive(Debug, Default)]
pub struct Notify {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// The status that was told last.
    status: String,
    /// READY=1 has not arrived yet: it goes again with the next sign of life.
    owes_ready: bool,
}

impl Notify {
    /// To the manager that `variable` (the environment) names, if any. A socket that cannot be used is a warning: the
    /// agent works all the same.
    pub fn new(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let manager = variable("NOTIFY_SOCKET")
            .filter(|name| !name.is_empty())
            .and_then(|name| {
                open(&name)
                    .inspect_err(|e| {
                        log::warn!(
                            "the service manager is told nothing: NOTIFY_SOCKET {} cannot be used: {e}",
                            name.display()
                        );
                    })
                    .ok()
            });
        Self {
            manager,
            status: String::new(),
            owes_ready: false,
        }
    }

    /// Whether there is anyone to tell.
    pub fn is_heard(&self) -> bool {
        self.manager.is_some()
    }

    /// The agent does its work. `status` as in [`Notify::status`].
    pub fn ready(&mut self, status: &str) {
        self.owes_ready = !self.tell("READY=1", Some(status));
    }

    /// The configuration is being read anew; [`Notify::ready`] says that it has been.
    pub fn reloading(&mut self, monotonic: Duration) {
        self.tell(
            &format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic.as_micros()),
            None,
        );
    }

    /// The agent ends.
    pub fn stopping(&mut self) {
        self.tell("STOPPING=1", Some("stopping"));
    }

    /// The agent lives.
    ///
    /// False: the manager has not read it; say it again soon.
    pub fn alive(&mut self) -> bool {
        if !self.owes_ready {
            return self.tell("WATCHDOG=1", None);
        }
        self.owes_ready = !self.tell("READY=1\nWATCHDOG=1", None);
        !self.owes_ready
    }

    /// What the agent does, for `systemctl status`. Told when it differs from the last one.
    pub fn status(&mut self, status: &str) {
        let status = one_line(status);
        if self.is_heard() && status != self.status && self.send(&format!("STATUS={status}")) {
            self.status = status;
        }
    }

    fn tell(&mut self, what: &str, status: Option<&str>) -> bool {
        if !self.is_heard() {
            return true;
        }
        let status = status.map(one_line);
        let mut text = what.to_owned();
        if let Some(status) = &status {
            text.push_str("\nSTATUS=");
            text.push_str(status);
        }
        let told = self.send(&text);
        if let Some(status) = status.filter(|_| told) {
            self.status = status;
        }
        told
    }

    fn send(&self, text: &str) -> bool {
        if let Some((socket, address)) = &self.manager
            && let Err(e) = socket.send_to_addr(text.as_bytes(), address)
        {
            log::warn!("the service manager cannot be told {text:?}: {e}");
            return false;
        }
        true
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        // systemd knows vsock addresses too, for virtual machines that are told from outside.
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "neither a path nor an abstract address",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, address))
}

/// A line end would begin another variable.
fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    line.truncate(line.floor_char_boundary(STATUS_LIMIT));
    line
}

/// How often the manager wants to hear of the agent at least, where it does.
pub fn watchdog(variable: &dyn Fn(&str) -> Option<OsString>, pid: u32) -> Option<Duration> {
    let number =
        |name| variable(name).map(|text| text.to_str().and_then(|t| t.parse::<u64>().ok()));
    // It may be meant for the parent, whose environment this is.
    if number("WATCHDOG_PID").is_some_and(|meant| meant != Some(pid.into())) {
        return None;
    }
    let Some(Some(micros)) = number("WATCHDOG_USEC").filter(|micros| *micros != Some(0)) else {
        if let Some(text) = variable("WATCHDOG_USEC") {
            log::warn!(
                "no watchdog: WATCHDOG_USEC {} is no number of microseconds",
                text.display()
            );
        }
        return None;
    };
    Some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn to(name: impl Into<OsString>) -> Notify {
        let name = name.into();
        Notify::new(&|variable| (variable == "NOTIFY_SOCKET").then(|| name.clone()))
    }

    fn heard(socket: &UnixDatagram) -> String {
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut buffer = [0; 2048];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    #[test]
    fn it_speaks_to_paths_and_abstract_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("triton-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (socket, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into()),
            (
                UnixDatagram::bind_addr(&address).unwrap(),
                OsString::from(format!("@{abstract_name}")),
            ),
        ] {
            let mut notify = to(name);
            assert!(notify.is_heard());
            notify.ready("waiting\nREADY=1");
            assert_eq!(heard(&socket), "READY=1\nSTATUS=waiting READY=1");
            notify.reloading(Duration::from_micros(4_294_967_297));
            assert_eq!(heard(&socket), "RELOADING=1\nMONOTONIC_USEC=4294967297");
            notify.status("waiting READY=1");
            notify.status(&"ä".repeat(STATUS_LIMIT));
            let long = format!("STATUS={}", "ä".repeat(STATUS_LIMIT / 2));
            assert_eq!(
                heard(&socket),
                long,
                "what is known already is not told again"
            );
            notify.alive();
            assert_eq!(heard(&socket), "WATCHDOG=1");
            notify.stopping();
            assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=stopping");
        }
    }

    #[test]
    fn a_manager_that_cannot_be_told_stops_nothing() {
        for name in ["", "relative", "vsock:2:1234", "/does/not/exist"] {
            let mut notify = to(name);
            notify.ready("");
            notify.alive();
        }
        assert!(!Notify::new(&|_| None).is_heard());
        assert!(!Path::new("relative").exists());
    }

    #[test]
    fn the_watchdog_is_meant_for_this_process() {
        let environment = |usec: Option<&str>, pid: Option<&str>| {
            let of = |text: Option<&str>| text.map(OsString::from);
            let (usec, pid) = (of(usec), of(pid));
            watchdog(
                &|name| match name {
                    "WATCHDOG_USEC" => usec.clone(),
                    "WATCHDOG_PID" => pid.clone(),
                    _ => None,
                },
                77,
            )
        };
        let period = Some(Duration::from_secs(2));
        assert_eq!(environment(Some("2000000"), Some("77")), period);
        assert_eq!(environment(Some("2000000"), None), period);
        for (usec, pid) in [
            (None, None),
            (None, Some("77")),
            (Some("2000000"), Some("78")),
            (Some("2000000"), Some("x")),
            (Some("0"), Some("77")),
            (Some("soon"), Some("77")),
        ] {
            assert_eq!(environment(usec, pid), None, "{usec:?} {pid:?}");
        }
    }
}

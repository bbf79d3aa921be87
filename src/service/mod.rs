//! The agent as a service: what `main` tells the service manager, and when.

pub mod notify;
pub mod watchdog;

use crate::link::status::{LinkStatus, Snapshot, State};
use crate::sys::clock;
use crate::sys::wake::Wake;
use notify::Notify;
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;
use watchdog::{Part, Watchdog};

/// Variables that are between the service manager and the agent: nothing for a job, which could feed the watchdog,
/// report itself ready, or take its own output for the journal's.
pub const VARIABLES: [&str; 10] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "CREDENTIALS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
];

/// The one who speaks with the service manager.
pub struct Service<'a> {
    notify: Notify,
    watchdog: Option<Watchdog<'a>>,
    link: Arc<LinkStatus>,
    /// Why the configuration that was to be read is not in force.
    refused: Option<String>,
}

impl<'a> Service<'a> {
    /// The agent is ready. From here on the manager waits for signs of life of all `parts`, if it wants them.
    pub fn begin(
        notify: Notify,
        link: Arc<LinkStatus>,
        parts: Vec<&'a dyn Part>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Self {
        let period = notify
            .is_heard()
            .then(|| notify::watchdog(variable, std::process::id()))
            .flatten();
        let mut service = Self {
            watchdog: period.map(|period| Watchdog::new(parts, period, Instant::now())),
            notify,
            link,
            refused: None,
        };
        let status = service.describe();
        service.notify.ready(&status);
        service
    }

    /// Readable when the connection's state has changed; where there is nobody to tell, there is nothing to wait for.
    pub fn changed(&self) -> Option<BorrowedFd<'_>> {
        self.link.changed()
    }

    /// When to call [`Service::turn`] at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.watchdog.as_ref().map(Watchdog::next)
    }

    /// Tells what has changed, and that the agent lives if it does.
    pub fn turn(&mut self) {
        if !self.notify.is_heard() {
            return;
        }
        self.link.seen();
        let status = self.describe();
        self.notify.status(&status);
        if self
            .watchdog
            .as_mut()
            .is_some_and(|dog| dog.look(Instant::now()))
        {
            let told = self.notify.alive();
            if let Some(dog) = self.watchdog.as_mut().filter(|_| !told) {
                dog.not_told(Instant::now());
            }
        }
    }

    /// The configuration is being read anew.
    pub fn reloading(&mut self) {
        self.notify
            .reloading(clock::monotonic().unwrap_or_default());
    }

    /// It has been: it is in force, or the old one still is, and why.
    pub fn reloaded(&mut self, refused: Option<String>) {
        self.refused = refused;
        let status = self.describe();
        self.notify.ready(&status);
    }

    /// The agent ends.
    pub fn stopping(&mut self) {
        self.notify.stopping();
    }

    fn describe(&self) -> String {
        let mut text = describe(&self.link.get());
        if let Some(reason) = &self.refused {
            text.push_str("; the new configuration is not in force: ");
            text.push_str(reason);
        }
        text
    }
}

fn describe(link: &Snapshot) -> String {
    match (link.state, &link.url, &link.last_error) {
        (State::Off, _, _) => "working offline: no url is configured".to_owned(),
        (State::Connected, Some(url), _) => format!("connected to {url}"),
        (State::Connected, None, _) => "connected".to_owned(),
        // The next attempt is no news before it has succeeded.
        (State::Connecting | State::Waiting, _, Some(error)) => {
            format!("not connected, trying again: {error}")
        }
        (State::Connecting | State::Waiting, _, None) => {
            format!("connecting to {}", link.urls.join(", "))
        }
    }
}

/// What wakes `main` when the connection's state changes: nothing, where nobody is told.
pub fn bell(notify: &Notify) -> std::io::Result<Option<Wake>> {
    notify.is_heard().then(Wake::new).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_changes_with_the_news_only() {
        let mut link = Snapshot {
            urls: vec!["wss://a".to_owned(), "wss://b".to_owned()],
            ..Snapshot::default()
        };
        assert!(describe(&link).contains("offline"));
        link.state = State::Connecting;
        assert_eq!(describe(&link), "connecting to wss://a, wss://b");
        link.state = State::Waiting;
        link.last_error = Some("tcp: refused".to_owned());
        let waiting = describe(&link);
        assert!(waiting.contains("tcp: refused"), "{waiting}");
        link.state = State::Connecting;
        assert_eq!(describe(&link), waiting);
        link.state = State::Connected;
        link.url = Some("wss://b at 192.0.2.1:443".to_owned());
        assert_eq!(describe(&link), "connected to wss://b at 192.0.2.1:443");
    }
}

//! The log: to standard error, where procd and systemd take it from, or to the system's log.
//!
//! A level says what its reader should do: `error` act now; `warn` look into it; `info` nothing, the story of a
//! normal day; `debug` and `trace` for finding a fault.

use crate::config::LogTo;
use crate::sys::syslog::{SOCKET, Syslog};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Crates that show what goes over the wire, frame by frame: not for a log that may be shown to others.
const WORDY: [&str; 2] = ["tungstenite", "rustls"];

/// The one log of this process.
struct Logger {
    /// journald reads a priority in front of each line (sd-daemon(3)).
    journal: OnceLock<bool>,
    syslog: OnceLock<Syslog>,
    /// Whether it goes there.
    to_syslog: AtomicBool,
    /// Messages that went to standard error because the log daemon did not take them.
    missed: AtomicUsize,
}

static LOGGER: Logger = Logger {
    journal: OnceLock::new(),
    syslog: OnceLock::new(),
    to_syslog: AtomicBool::new(false),
    missed: AtomicUsize::new(0),
};

/// Starts the log once, to standard error; later calls change the level only.
pub fn start(level: LevelFilter) {
    LOGGER
        .journal
        .get_or_init(|| std::env::var_os("JOURNAL_STREAM").is_some());
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}

/// Says where the log goes from now on.
pub fn direct(to: LogTo) {
    if to == LogTo::Syslog && LOGGER.syslog.get().is_none() {
        match Syslog::new(Path::new(SOCKET), "triton") {
            Ok(syslog) => {
                let _ = LOGGER.syslog.set(syslog);
            }
            Err(e) => log::error!("the log stays on standard error: no socket for {SOCKET}: {e}"),
        }
    }
    LOGGER
        .to_syslog
        .store(to == LogTo::Syslog, Ordering::Relaxed);
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let name = metadata.target().split("::").next().unwrap_or_default();
        let most = if WORDY.contains(&name) {
            LevelFilter::Info
        } else {
            LevelFilter::Trace
        };
        metadata.level() <= most
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        let syslog = self.syslog.get();
        match syslog.filter(|_| self.to_syslog.load(Ordering::Relaxed)) {
            None => self.to_stderr(record.level(), &text),
            Some(syslog) => self.to_syslog(syslog, record.level(), &text),
        }
    }

    fn flush(&self) {}
}

impl Logger {
    fn to_stderr(&self, level: Level, text: &str) {
        let mut line = format!("{level:<5} {text}\n");
        if self.journal.get() == Some(&true) {
            line.insert_str(0, &format!("<{}>", priority(level)));
        }
        // One write: lines of several threads do not mix.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn to_syslog(&self, syslog: &Syslog, level: Level, text: &str) {
        let missed = self.missed.load(Ordering::Relaxed);
        let told = match missed {
            0 => Ok(()),
            _ => syslog.send(
                priority(Level::Warn),
                &format!("{missed} messages before this one went to standard error: {SOCKET} did not take them"),
            ),
        };
        if told.is_ok() && missed > 0 {
            self.missed.fetch_sub(missed, Ordering::Relaxed);
        }
        if let Err(e) = told.and_then(|()| syslog.send(priority(level), text)) {
            if self.missed.fetch_add(1, Ordering::Relaxed) == 0 {
                let text =
                    format!("{SOCKET} takes no messages ({e}): the log goes on here until it does");
                self.to_stderr(Level::Warn, &text);
            }
            self.to_stderr(level, text);
        }
    }
}

/// syslog's number for a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

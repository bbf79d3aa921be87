//! The log: to standard error, where procd and systemd take it from, or to the system's log.
//!
//! A level says what its reader should do: `error` act now; `warn` look into it; `info` nothing, the story of a
//! normal day; `debug` and `trace` for finding a fault.

use crate::config::LogTo;
use crate::sys::syslog::{SOCKET, Syslog};
use env_logger::{Builder, Target};
use log::{Level, LevelFilter};
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Where the one log of this process goes.
struct Sink {
    /// journald reads a priority in front of each line (sd-daemon(3)).
    journal: OnceLock<bool>,
    syslog: OnceLock<Syslog>,
    /// Whether it goes there.
    to_syslog: AtomicBool,
    /// Messages that went to standard error because the log daemon did not take them.
    missed: AtomicUsize,
}

static SINK: Sink = Sink {
    journal: OnceLock::new(),
    syslog: OnceLock::new(),
    to_syslog: AtomicBool::new(false),
    missed: AtomicUsize::new(0),
};

/// Starts the log once, to standard error; later calls change the level only.
pub fn start(level: LevelFilter) {
    SINK.journal
        .get_or_init(|| std::env::var_os("JOURNAL_STREAM").is_some());
    let _ = Builder::new()
        .filter_level(LevelFilter::Trace)
        // Frame by frame, with content: not for a log that may be shown to others.
        .filter_module("tungstenite", LevelFilter::Info)
        .filter_module("rustls", LevelFilter::Info)
        // The level as one byte: what takes the line needs it apart.
        .format(|out, record| write!(out, "{}{}", record.level() as u8, record.args()))
        .target(Target::Pipe(Box::new(&SINK)))
        .try_init();
    log::set_max_level(level);
}

/// Says where the log goes from now on.
pub fn direct(to: LogTo) {
    if to == LogTo::Syslog && SINK.syslog.get().is_none() {
        match Syslog::new(Path::new(SOCKET), "triton") {
            Ok(syslog) => {
                let _ = SINK.syslog.set(syslog);
            }
            Err(e) => log::error!("the log stays on standard error: no socket for {SOCKET}: {e}"),
        }
    }
    SINK.to_syslog.store(to == LogTo::Syslog, Ordering::Relaxed);
}

impl Write for &Sink {
    /// Takes one whole message, as the logger gives it.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(message);
        let number = text.chars().next().and_then(|c| c.to_digit(10));
        let level = Level::iter().find(|level| Some(*level as u32) == number);
        let text = if level.is_some() { &text[1..] } else { &text };
        let level = level.unwrap_or(Level::Info);
        let syslog = self.syslog.get();
        match syslog.filter(|_| self.to_syslog.load(Ordering::Relaxed)) {
            None => self.to_stderr(level, text),
            Some(syslog) => self.to_syslog(syslog, level, text),
        }
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn to_stderr(&self, level: Level, text: &str) {
        let mut line = format!("{level:<5} {text}\n");
        if self.journal.get() == Some(&true) {
            line.insert_str(0, &format!("<{}>", priority(level)));
        }
        // One write: lines of several threads do not mix.
        let _ = io::stderr().lock().write_all(line.as_bytes());
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

//! The log goes to standard error, where procd and systemd take it from.
//!
//! A level says what its reader should do: `error` act now; `warn` look into it; `info` nothing, the story of a
//! normal day; `debug` and `trace` for finding a fault.

use log::{Level, LevelFilter};
use std::io::Write as _;

/// Starts the log once; later calls change the level only.
pub fn start(level: LevelFilter) {
    // journald reads a priority in front of each line (sd-daemon(3)).
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let _ = env_logger::Builder::new()
        .filter_level(LevelFilter::Trace)
        // Frame by frame, with content: not for a log that may be shown to others.
        .filter_module("tungstenite", LevelFilter::Info)
        .filter_module("rustls", LevelFilter::Info)
        .format(move |out, record| {
            if journal {
                write!(out, "<{}>", priority(record.level()))?;
            }
            writeln!(out, "{:<5} {}", record.level(), record.args())
        })
        .try_init();
    log::set_max_level(level);
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

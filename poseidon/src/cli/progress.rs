//! How far a job is, on one line of the terminal that whatever is written next takes away.

use super::tables::clean;
use std::io::{IsTerminal as _, stderr};
use std::sync::atomic::{AtomicBool, Ordering};

/// Characters that are shown: it has to stay on one line.
const WIDTH: usize = 76;
/// There is one terminal, and who writes to it may know nothing of the job.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Shows it in place of the one before, where there is a terminal.
pub(super) fn show(prefix: &str, percent: f64, message: &str) {
    if stderr().is_terminal() {
        eprint!("\r{}\x1b[K", line(prefix, percent, message));
        SHOWN.store(true, Ordering::Release);
    }
}

/// Takes it away, before anything else is written.
pub(super) fn clear() {
    if SHOWN.swap(false, Ordering::AcqRel) {
        eprint!("\r\x1b[K");
    }
}

fn line(prefix: &str, percent: f64, message: &str) -> String {
    let line = format!("{prefix}{:3.0} % {message}", percent.clamp(0.0, 100.0));
    clean(&line).chars().take(WIDTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_on_one_line_and_obeys_no_terminal_codes() {
        assert_eq!(line("gate: ", 40.4, "half way"), "gate:  40 % half way");
        assert_eq!(line("", 1e9, "a\u{1b}[2J\nb"), "100 % a\u{FFFD}[2J b");
        assert_eq!(line("", 1.0, &"ä".repeat(500)).chars().count(), WIDTH);
    }
}

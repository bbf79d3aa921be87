//! How far a transfer is: bars on a terminal, now and then a line elsewhere.

use super::tables::bytes;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Lines do not come faster, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Bars that are shown at a time; more would scroll away.
const MAX_BARS: usize = 20;

/// All bars of a command.
pub(super) struct Bars {
    all: Option<MultiProgress>,
}

impl Bars {
    pub(super) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let draw = || MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self {
            all: terminal.then(draw),
        }
    }

    /// Of so many bytes.
    pub(super) fn of_bytes(&self, name: &str, total: u64) -> Bar {
        let style = "{prefix} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left {msg}";
        self.bar(name, total, style, false)
    }

    /// Of a hundred per cent.
    pub(super) fn of_percent(&self, name: &str, index: usize) -> Bar {
        let style = "{prefix} [{bar:30}] {pos} % {msg}";
        if index < MAX_BARS {
            return self.bar(name, 100, style, true);
        }
        Self { all: None }.bar(name, 100, style, true)
    }

    fn bar(&self, name: &str, total: u64, style: &str, percent: bool) -> Bar {
        let shown = self.all.as_ref().map(|all| {
            let bar = all.add(ProgressBar::new(total));
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(name.to_owned());
            bar
        });
        Bar {
            lines: self.all.is_none(),
            shown,
            name: name.to_owned(),
            total,
            percent,
            told: Instant::now(),
        }
    }

    /// A line that stays, above the bars.
    pub(super) fn say(&self, line: &str) {
        match &self.all {
            Some(all) => all.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }
}

/// One of them. It goes when it is dropped.
pub(super) struct Bar {
    shown: Option<ProgressBar>,
    lines: bool,
    name: String,
    total: u64,
    percent: bool,
    /// When the last line was written.
    told: Instant,
}

impl Bar {
    pub(super) fn set(&mut self, done: u64, message: &str) {
        if let Some(bar) = &self.shown {
            bar.set_position(done);
            bar.set_message(message.to_owned());
        } else if self.lines && self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            let far = if self.percent {
                format!("{done} %")
            } else {
                format!("{} of {}", bytes(&json!(done)), bytes(&json!(self.total)))
            };
            eprintln!("{}: {far} {message}", self.name);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

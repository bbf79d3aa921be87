//! One running program: its process, and the lines between it and the agent. What the lines mean is not known here.

use super::Settings;
use super::fit::Found;
use super::limits::{Budget, Window};
use crate::job::hide_own_variables;
use crate::local::{Line, Lines};
use crate::message::Message;
use crate::outbox::{Limits, Outbox};
use crate::sys::poll::{GONE, IN, OUT, PollSet};
use crate::sys::process::{self, KILL, Nice, Pid, Setup};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes read at once.
const PIECE: usize = 8 * 1024;
/// Lines handled before another plugin has its turn.
const LINES_A_TURN: usize = 32;
/// Messages that wait for a plugin at most. At half of it its own are not read any more.
const INPUT: usize = 256;
/// Bytes of standard error read in a second; more waits, since it would only be thrown away.
const NOISE_BYTES: usize = 64 * 1024;
const NOISE_PAUSE: Duration = Duration::from_secs(1);
/// Lines of a plugin in the agent's log within a minute.
const NOISE_LINES: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);
/// Longest line of it, in bytes.
const NOISE_LENGTH: usize = 512;
/// Bytes that are read of a program that has ended, at most.
const LAST_BYTES: usize = 1024 * 1024;
/// Without a pidfd an end is found by looking.
pub const LOOK: Duration = Duration::from_millis(500);

/// A plugin's process.
pub struct Program {
    name: &'static str,
    child: Child,
    pub pid: Pid,
    pidfd: Option<OwnedFd>,
    /// None: closed by us, or by the plugin, which then is told nothing any more.
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
    lines: Lines,
    /// Whether the lines that came were all looked at.
    drained: bool,
    /// What waits to be told.
    pub outbox: Arc<Outbox>,
    pending: Vec<u8>,
    written: usize,
    /// Since when its input takes nothing.
    stuck: Option<Instant>,
    budget: Budget,
    /// Until when its messages are not read: it has sent too many.
    limited: Option<Instant>,
    noise: Lines,
    noise_bytes: usize,
    noise_until: Option<Instant>,
    noise_window: Window,
}

/// Places in a poll set.
#[derive(Clone, Copy)]
pub struct Places {
    stdout: Option<usize>,
    stderr: Option<usize>,
}

/// What a look at its output gave.
pub enum Next {
    Line(Line),
    /// Nothing now.
    Nothing,
    /// There is more, which has to wait for its turn.
    Later,
    /// It has closed its output.
    Closed,
}

impl Program {
    /// Starts it: in a process group of its own, in `/`, with the agent's environment but for the agent's own
    /// variables.
    pub fn start(found: &Found, name: &'static str, settings: &Settings) -> io::Result<Self> {
        let mut command = Command::new(&found.path);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        hide_own_variables(&mut command);
        command
            .env("TRITON_SOCKET", &settings.socket)
            .env("TRITON_PLUGIN", name);
        process::prepare(
            &mut command,
            Setup {
                identity: None,
                directory: c"/".to_owned(),
                nice: Nice::AtLeast(settings.nice),
                oom_score_adj: settings.oom_score_adj,
                memory: None,
            },
        );
        process::end_with_parent(&mut command);
        let outbox = Outbox::new(Limits {
            control: INPUT,
            output_bytes: 1,
        })?;
        outbox.set_online(true);
        let mut child = command.spawn().map_err(|e| process::failed_step(e).1)?;
        let pipe = |pipe: Option<OwnedFd>| -> io::Result<Option<File>> {
            if let Some(pipe) = &pipe {
                process::set_nonblocking(pipe.as_fd())?;
            }
            Ok(pipe.map(File::from))
        };
        let taken = (|| {
            let pid = Pid::try_from(child.id()).map_err(io::Error::other)?;
            let stdin = pipe(child.stdin.take().map(OwnedFd::from))?;
            let stdout = pipe(child.stdout.take().map(OwnedFd::from))?;
            let stderr = pipe(child.stderr.take().map(OwnedFd::from))?;
            Ok((pid, stdin, stdout, stderr))
        })();
        let (pid, stdin, stdout, stderr) = match taken {
            Ok(taken) => taken,
            Err(e) => {
                // Linux gives no reason to come here; but no process may be left behind unwatched.
                let _ = child.kill();
                let _ = child.wait();
                return Err(e);
            }
        };
        let now = Instant::now();
        Ok(Self {
            name,
            child,
            pid,
            pidfd: process::pidfd(pid).ok(),
            stdin,
            stdout,
            stderr,
            lines: Lines::new(settings.message_limit),
            drained: true,
            outbox: Arc::new(outbox),
            pending: Vec::new(),
            written: 0,
            stuck: None,
            budget: Budget::new(settings.rate, now),
            limited: None,
            noise: Lines::new(NOISE_LENGTH),
            noise_bytes: 0,
            noise_until: None,
            noise_window: Window::new(NOISE_LINES, MINUTE),
        })
    }

    /// Adds what it waits for. `hold`: its messages are not wanted now.
    pub fn watch<'a>(&'a self, set: &mut PollSet<'a>, hold: bool) -> Places {
        set.add(self.outbox.wake().as_fd(), IN);
        if let Some(pidfd) = &self.pidfd {
            set.add(pidfd.as_fd(), IN);
        }
        let waits = self.written < self.pending.len();
        let stdin = self.stdin.as_ref().filter(|_| waits);
        let reads = !hold && self.drained && self.limited.is_none() && !self.is_congested();
        let stdout = self.stdout.as_ref().filter(|_| reads);
        let stderr = self.stderr.as_ref().filter(|_| self.noise_until.is_none());
        if let Some(stdin) = stdin {
            set.add(stdin.as_fd(), OUT);
        }
        Places {
            stdout: stdout.map(|file| set.add(file.as_fd(), IN)),
            stderr: stderr.map(|file| set.add(file.as_fd(), IN)),
        }
    }

    /// Whether so many answers wait for it that it gets no more by being read.
    pub fn is_congested(&self) -> bool {
        self.outbox.is_congested()
    }

    /// Whether it may have said something that is not looked at yet.
    pub fn is_held_back(&self) -> bool {
        !self.drained || self.limited.is_some() || self.is_congested()
    }

    /// Whether lines wait here that were read already.
    pub fn has_lines(&self) -> bool {
        !self.drained && self.limited.is_none() && !self.is_congested()
    }

    /// When something is to be looked at though nothing happens.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let look = self.pidfd.is_none().then(|| now + LOOK);
        [self.limited, self.noise_until, look]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes bytes that came. False: it has closed its output.
    pub fn read(&mut self, places: Places, set: &[i16], now: Instant) -> bool {
        if self.limited.is_some_and(|until| until <= now) {
            self.limited = None;
        }
        if self.noise_until.is_some_and(|until| until <= now) {
            self.noise_until = None;
            self.noise_bytes = 0;
        }
        let ready = |place: Option<usize>| place.is_some_and(|place| set[place] & (IN | GONE) != 0);
        if ready(places.stderr) {
            self.listen(now);
        }
        if !ready(places.stdout) || !self.drained {
            return true;
        }
        self.fill()
    }

    /// One piece of its output. False: there is no more, ever.
    fn fill(&mut self) -> bool {
        let Some(stdout) = &mut self.stdout else {
            return false;
        };
        let mut piece = [0; PIECE];
        match stdout.read(&mut piece) {
            Ok(0) => {
                self.stdout = None;
                // The last line may lack its end.
                self.lines.push(b"\n");
                self.drained = false;
                false
            }
            Ok(n) => {
                self.lines.push(&piece[..n]);
                self.drained = false;
                true
            }
            Err(e) => matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Its lines, one turn's worth. `unlimited` for what is left when it has ended.
    pub fn next_line(&mut self, taken: &mut usize, unlimited: bool) -> Next {
        if self.drained {
            return if self.stdout.is_none() {
                Next::Closed
            } else {
                Next::Nothing
            };
        }
        if !unlimited {
            let now = Instant::now();
            if *taken >= LINES_A_TURN || self.is_congested() {
                return Next::Later;
            }
            if !self.budget.spend(now) {
                self.limited = Some(self.budget.next());
                return Next::Later;
            }
        }
        *taken += 1;
        match self.lines.next_line() {
            Some(line) => Next::Line(line),
            None => {
                self.drained = true;
                self.next_line(taken, unlimited)
            }
        }
    }

    /// Reads what is left in its output when it has ended.
    pub fn read_the_rest(&mut self) -> bool {
        self.drained && self.stdout.is_some() && {
            let before = self.drained;
            self.fill();
            before && !self.drained
        }
    }

    /// How much of that is read at most, in pieces.
    pub const LAST_PIECES: usize = LAST_BYTES / PIECE;

    /// What it says on its standard error, into the log.
    fn listen(&mut self, now: Instant) {
        let Some(stderr) = &mut self.stderr else {
            return;
        };
        let mut piece = [0; PIECE];
        match stderr.read(&mut piece) {
            Ok(0) => {
                self.stderr = None;
                self.noise.push(b"\n");
            }
            Ok(n) => {
                self.noise.push(&piece[..n]);
                self.noise_bytes += n;
                if self.noise_bytes >= NOISE_BYTES {
                    self.noise_until = Some(now + NOISE_PAUSE);
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.stderr = None,
        }
        while let Some(line) = self.noise.next_line() {
            let text = match line {
                Line::Whole(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Line::TooLong => "(a line that is too long)".to_owned(),
            };
            self.log(log::Level::Warn, &text, now);
        }
    }

    /// Says something of the plugin's in the agent's log, as far as its share goes.
    pub fn log(&mut self, level: log::Level, text: &str, now: Instant) {
        let (within, missed) = self.noise_window.add(now);
        if missed > 0 {
            log::warn!("plugin {}: {missed} more lines were not logged", self.name);
        }
        if within {
            let clean: String = text
                .chars()
                .take(NOISE_LENGTH)
                .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
                .collect();
            log::log!(level, "plugin {}: {clean}", self.name);
        }
    }

    /// Writes what waits, as far as that goes at once.
    pub fn write(&mut self, now: Instant) {
        self.outbox.wake().clear();
        loop {
            let Some(stdin) = &mut self.stdin else {
                return;
            };
            if self.written == self.pending.len() {
                self.pending.clear();
                self.written = 0;
                self.stuck = None;
                let Some(message) = self.outbox.pop() else {
                    return;
                };
                match message.encode() {
                    Ok(line) => self.pending = line.into_bytes(),
                    Err(e) => {
                        log::error!(
                            "plugin {}: a {} cannot be sent: {e}",
                            self.name,
                            message.kind
                        );
                        continue;
                    }
                }
                self.pending.push(b'\n');
            }
            match stdin.write(&self.pending[self.written..]) {
                Ok(n) => {
                    self.written += n;
                    self.stuck = None;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.stuck.get_or_insert(now);
                    return;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.close_input(),
            }
        }
    }

    /// Since when its input takes nothing.
    pub fn stuck(&self) -> Option<Instant> {
        self.stuck
    }

    /// It is told nothing any more.
    pub fn close_input(&mut self) {
        self.stdin = None;
        self.stuck = None;
        self.pending.clear();
        self.written = 0;
        self.outbox.close();
    }

    /// A last message, as far as there is room for it at once, and the end of its input.
    pub fn say_bye(&mut self, bye: Message, now: Instant) {
        self.outbox.push(bye);
        self.write(now);
        self.close_input();
    }

    /// Signals all of its process group.
    pub fn signal(&self, signal: i32) {
        process::signal_group(self.pid, signal);
    }

    /// Whether it has ended. It is not reaped.
    pub fn has_ended(&self) -> bool {
        process::has_exited(self.pid).unwrap_or(true)
    }

    /// Reaps it; what is left of its process group is killed before, while its number is still its own. Returns how it
    /// ended.
    pub fn reap(mut self) -> String {
        self.signal(KILL);
        self.listen(Instant::now());
        let beyond = self.noise_window.take_beyond();
        if beyond > 0 {
            log::warn!("plugin {}: {beyond} more lines were not logged", self.name);
        }
        match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(e) => format!("its end cannot be told: {e}"),
        }
    }
}

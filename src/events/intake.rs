//! The thread that takes events from the syslog listener and from followed files. There is none unless one of them is
//! configured.

use super::follow::Files;
use super::gate::Gate;
use super::listen::{Listener, Place};
use super::{Events, Tally};
use crate::config;
use crate::service::watchdog::{Part, Pulse};
use crate::sys::poll::{IN, PollSet};
use crate::sys::wake::Wake;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Pause between attempts to listen.
const RETRY: Duration = Duration::from_secs(30);
/// What was refused is logged so often.
const REPORT: Duration = Duration::from_mins(1);
/// A disk of followed files, or of the journal, may hang for so long before the watchdog hears of it.
const PATIENCE: Duration = Duration::from_mins(10);

/// What the thread works by, and what ends it.
pub struct Intake {
    events: Arc<Events>,
    settings: config::Events,
    group: Option<String>,
    state: PathBuf,
    wake: Wake,
    stopping: AtomicBool,
    pulse: Pulse,
}

impl Intake {
    /// None where nothing is configured. `group` may send to the socket at a path; `state` is the agent's own folder.
    pub fn new(
        events: Arc<Events>,
        settings: &config::Events,
        group: Option<String>,
        state: PathBuf,
    ) -> io::Result<Option<Self>> {
        let listens = settings.syslog_udp.is_some() || settings.syslog_unix.is_some();
        if !listens && settings.files.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            events,
            settings: settings.clone(),
            group,
            state,
            wake: Wake::new()?,
            stopping: AtomicBool::new(false),
            pulse: Pulse::default(),
        }))
    }

    /// Ends [`Self::run`].
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake.ring();
    }

    /// The body of the thread `events`.
    pub fn run(&self) {
        let settings = &self.settings;
        let mut listeners: Vec<Listener> = Vec::new();
        listeners.extend(settings.syslog_udp.map(|at| Listener::new(Place::Udp(at))));
        let unix = settings.syslog_unix.clone();
        let unix = unix.map(|path| Listener::new(Place::Unix(path, self.group.clone())));
        listeners.extend(unix);
        let mut gate = Gate::new(settings.rate, Instant::now());
        let mut files = Files::open(&settings.files, settings.rate, &self.state, &self.events);
        let mut buffer = Vec::new();
        let (mut bind_at, mut look_at) = (Some(Instant::now()), files.first_look());
        let (mut report_at, mut reported) = (None, self.events.report());
        while !self.stopping.load(Ordering::Acquire) {
            self.pulse.beat();
            let now = Instant::now();
            if bind_at.is_some_and(|at| now >= at) {
                let mut all = true;
                for listener in &mut listeners {
                    all &= listener.open();
                }
                bind_at = (!all).then(|| now + RETRY);
            }
            if look_at.is_some_and(|at| now >= at) {
                self.pulse.busy_until(Some(now + PATIENCE));
                look_at = Some(now + files.look(&self.events, &mut buffer));
                self.pulse.busy_until(None);
            }
            // Offline there may be nobody else who tries a disk that has failed.
            let journal = &self.events.journal;
            if journal.retry_due().is_some_and(|at| now >= at) {
                self.pulse.busy_until(Some(now + PATIENCE));
                journal.tend();
                self.pulse.busy_until(None);
            }
            let sources = listeners
                .iter()
                .map(|l| (l.name.clone(), l.problem.clone()));
            self.events.tally().sources = sources.chain(files.report()).collect();
            if report_at.is_some_and(|at| now >= at) {
                let tally = self.events.report();
                log_refused(&reported, &tally);
                (report_at, reported) = (None, tally);
            }
            let mut set = PollSet::new();
            let wake = set.add(self.wake.as_fd(), IN);
            let places: Vec<Option<usize>> = listeners
                .iter()
                .map(|listener| listener.fd().map(|fd| set.add(fd, IN)))
                .collect();
            let deadlines = [bind_at, look_at, report_at, journal.retry_due()];
            if let Err(e) = set.wait(deadlines.into_iter().flatten().min()) {
                log::error!("events: poll fails: {e}; trying again in a second");
                std::thread::sleep(Duration::from_secs(1));
                continue;
            }
            if set.ready(wake) != 0 {
                self.wake.clear();
            }
            let ready: Vec<bool> = places
                .iter()
                .map(|place| place.is_some_and(|place| set.ready(place) != 0))
                .collect();
            for (listener, ready) in listeners.iter_mut().zip(ready) {
                if ready {
                    listener.take(&self.events, &mut gate, &mut buffer);
                    if listener.fd().is_none() {
                        bind_at.get_or_insert(Instant::now() + RETRY);
                    }
                }
            }
            if report_at.is_none() && is_worse(&reported, &self.events.tally()) {
                report_at = Some(Instant::now() + REPORT);
            }
        }
        files.save(&self.events);
        log_refused(&reported, &self.events.report());
    }
}

fn is_worse(before: &Tally, now: &Tally) -> bool {
    let of = |t: &Tally| (t.refused, t.not_cef, t.limited);
    of(before) != of(now)
}

fn log_refused(before: &Tally, now: &Tally) {
    if is_worse(before, now) {
        log::warn!(
            "events: {} lines were refused (the last: {}), {} had no CEF event, {} came faster than events.rate",
            now.refused - before.refused,
            now.reason.as_deref().unwrap_or("none yet"),
            now.not_cef - before.not_cef,
            now.limited - before.limited
        );
    }
}

impl Part for Intake {
    fn ask(&self) {
        self.pulse.ask();
        self.wake.ring();
    }

    fn silent(&self, now: Instant) -> Option<String> {
        self.pulse.silent(now, "events")
    }
}

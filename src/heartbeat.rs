//! The heartbeat's timer: while there is a connection it reads the health at each interval and hands it to the
//! outbox. Without one it sleeps.

use crate::job::Pool;
use crate::journal::Journal;
use crate::link::status::LinkStatus;
use crate::message::Message;
use crate::message::payload::{self, AgentHealth};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::plugin::health::{self, Health};
use crate::service::watchdog::{Part, Pulse};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tells the timer what the connection does.
#[derive(Default)]
pub struct Heartbeat {
    state: Mutex<State>,
    changed: Condvar,
    pulse: Pulse,
}

#[derive(Default)]
struct State {
    /// Set while there is a connection: how often, and to whom.
    beats: Option<(Duration, Arc<Outbox>)>,
    next: Option<Instant>,
    stopping: bool,
}

/// What a heartbeat says about the agent comes from here.
pub struct Sources {
    /// Whether it says more of the device than its uptime.
    pub health: bool,
    /// Knows how much waits for Poseidon.
    pub outbox: Arc<Outbox>,
    /// Knows the jobs.
    pub pool: Arc<Pool>,
    /// Knows the reconnects.
    pub link: Arc<LinkStatus>,
    /// Knows how many records wait.
    pub journal: Arc<Journal>,
    /// Knows what scripts and plugins measure.
    pub metrics: Arc<Metrics>,
}

impl Heartbeat {
    /// A timer without connection.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection stands: the first heartbeat goes into `outbox` at once.
    pub fn start(&self, interval: Duration, outbox: &Arc<Outbox>) {
        let mut state = self.state();
        state.beats = Some((interval, Arc::clone(outbox)));
        state.next = Some(Instant::now());
        drop(state);
        self.changed.notify_one();
    }

    /// The connection is gone. Nobody is woken: the timer finds out at its next beat.
    pub fn pause(&self) {
        self.state().beats = None;
    }

    /// Ends [`Heartbeat::run`].
    pub fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_one();
    }

    /// Waits until a heartbeat is due, and says where to put it; none when stopped.
    fn wait(&self) -> Option<Arc<Outbox>> {
        let mut state = self.state();
        loop {
            self.pulse.beat();
            if state.stopping {
                return None;
            }
            let (Some((interval, outbox)), Some(next)) = (&state.beats, state.next) else {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let now = Instant::now();
            if now >= next {
                // From the plan, not from now, so that the beat does not drift; a missed one is not made up for.
                let (planned, outbox) = (next + *interval, Arc::clone(outbox));
                state.next = Some(if planned > now {
                    planned
                } else {
                    now + *interval
                });
                return Some(outbox);
            }
            state = self
                .changed
                .wait_timeout(state, next - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The body of the thread `heartbeat`.
    pub fn run(&self, sources: &Sources) {
        let on = cfg!(feature = "health") && sources.health;
        let mut health = on.then(Health::new);
        while let Some(outbox) = self.wait() {
            sources.journal.tend();
            // A sensor or a disk that hangs takes the heartbeats, and nothing else: an agent that still runs commands
            // is the means of repair, and a new one would hang there again.
            self.pulse.busy_until(Some(Instant::now() + NO_END));
            let mut beat = match &mut health {
                // Said twice, so that a build without it has nothing of it.
                Some(health) if cfg!(feature = "health") => health.read(),
                _ => health::uptime_only(),
            };
            self.pulse.busy_until(None);
            beat.agent = Some(AgentHealth {
                rss: health::agent_rss().unwrap_or_default(),
                queue: sources.outbox.len() as u64 + sources.journal.report().waiting,
                jobs: (sources.pool.running() + sources.pool.waiting()) as u64,
                reconnects: sources.link.reconnects(),
            });
            beat.metrics = sources.metrics.list();
            outbox.set_heartbeat(Message::with(payload::HEARTBEAT, &beat));
        }
    }
}

/// Longer than any agent runs.
const NO_END: Duration = Duration::from_hours(24 * 365 * 100);

impl Part for Heartbeat {
    fn ask(&self) {
        // Under the lock: between the look at the state and the wait nobody could be woken.
        let state = self.state();
        self.pulse.ask();
        drop(state);
        self.changed.notify_one();
    }

    fn silent(&self, now: Instant) -> Option<String> {
        self.pulse.silent(now, "heartbeat")
    }
}

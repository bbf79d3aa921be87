//! The body of the thread `link`: connect, speak, wait, again.

use super::backoff::Backoff;
use super::control::{Control, Order};
use super::session::{self, Context, End};
use super::settings::LinkSettings;
use super::status::{LinkStatus, State};
use super::{ConnectError, Connection, Deadlines, Kind, Options, Outcome, Resolver, Step, connect};
use crate::dispatch::Dispatcher;
use crate::heartbeat::Heartbeat;
use crate::identity::Instance;
use crate::journal::Journal;
use crate::message::payload::{AgentVersion, Hello, Revision};
use crate::outbox::Outbox;
use crate::schedule::Scheduler;
use crate::scripts::{Attributes, Repository};
use crate::sys::clock;
use crate::sys::clock_watch::ClockWatch;
use crate::sys::poll::{IN, PollSet, after};
use crate::trust::Trust;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the thread works with, whatever the settings.
pub struct Parts {
    /// What waits to be sent.
    pub outbox: Arc<Outbox>,
    /// Acts on requests.
    pub dispatcher: Arc<Dispatcher>,
    /// Is told when a connection stands.
    pub heartbeat: Arc<Heartbeat>,
    /// Is told what happens.
    pub status: Arc<LinkStatus>,
    /// Stop and reload come from here.
    pub control: Arc<Control>,
    /// What has to reach Poseidon.
    pub journal: Arc<Journal>,
    /// Knows which entries it has. None where nothing runs by the clock.
    pub scheduler: Option<Arc<Scheduler>>,
    /// What Poseidon says of this device, for its scripts.
    pub attributes: Arc<Attributes>,
    /// The scripts. None where Poseidon cannot bring any.
    pub scripts: Option<Arc<Repository>>,
    /// Whom this device obeys.
    pub trust: Arc<Trust>,
    /// Who this agent is.
    pub instance: Instance,
    /// Random per process.
    pub run: String,
    /// What to remove where two agents live with one instance id.
    pub clone_advice: String,
}

/// Keeps a connection until stopped.
pub fn run(parts: &Parts, mut resolver: Resolver) {
    let mut backoff = Backoff::new();
    let mut first = true;
    // Without it a set clock is noticed at the next attempt.
    let watch = ClockWatch::new()
        .inspect_err(|e| log::debug!("the clock cannot be watched: {e}"))
        .ok();
    loop {
        parts.control.pulse().beat();
        let settings = parts.control.settings();
        if parts.control.order() == Order::Stop {
            return;
        }
        parts.status.update(|s| {
            s.urls = settings
                .options
                .urls
                .iter()
                .map(ToString::to_string)
                .collect();
        });
        parts.journal.set_alone(settings.options.urls.is_empty());
        if settings.options.urls.is_empty() {
            parts.status.enter(State::Off, |_| {});
            wait(&parts.control, None, None);
            continue;
        }
        parts.status.enter(State::Connecting, |_| {});
        if let Some(watch) = &watch {
            // What is set from here on counts, also while this attempt is under way.
            watch.clear();
        }
        let mut watched = None;
        let options = Options {
            device_key: parts.trust.prepare(&settings.poseidon_keys),
            ..settings.options.clone()
        };
        let attempt = connect(&options, &mut resolver, parts.control.wake(), &mut |step| {
            excuse(&parts.control, &settings.options.deadlines, &step);
            log::debug!("{}: {}", step.phase, step.text);
        });
        let pause = match attempt {
            Ok(connection) => {
                log::info!("connected to {}", connection.peer());
                session::connected(&parts.status, connection.peer(), first);
                if let Some(route) = connection.route() {
                    parts.control.reached(route.clone());
                }
                first = false;
                let begun = Instant::now();
                let end = speak(parts, &settings, connection);
                let (kind, reason) = match end {
                    End::Stopped => return,
                    End::Reload => {
                        backoff.session_ended(begun.elapsed());
                        continue;
                    }
                    End::Lost(reason) => {
                        backoff.session_ended(begun.elapsed());
                        log::warn!("the connection ended: {reason}");
                        (Kind::Other, reason)
                    }
                    End::Untrusted(reason) => {
                        let reason = untrusted(parts, &reason);
                        log::error!("{reason}");
                        (Kind::Unregistered, reason)
                    }
                    End::Collision => {
                        let reason = collision(parts);
                        log::error!("{reason}");
                        // As patient as one that is not let in.
                        (Kind::Unregistered, reason)
                    }
                };
                parts.status.update(|s| s.last_error = Some(reason));
                backoff.after(kind, chance())
            }
            // A stop or a reload interrupts an attempt; it is no failure.
            Err(_) if parts.control.wants_retry() => continue,
            Err(error) => {
                report(&error, &settings);
                // Without a connection nobody else tries a disk that has failed, unless there is something to store.
                parts.journal.tend();
                if error.kind == Kind::Clock {
                    watched = watch.as_ref().map(ClockWatch::as_fd);
                }
                parts
                    .status
                    .update(|s| s.last_error = Some(error.to_string()));
                backoff.after(error.kind, chance())
            }
        };
        parts.status.enter(State::Waiting, |s| {
            s.next_attempt = Some(clock::now() + pause.as_secs_f64());
        });
        log::info!("next attempt in {:.1} s", pause.as_secs_f64());
        wait(&parts.control, Some(Instant::now() + pause), watched);
    }
}

fn speak(parts: &Parts, settings: &LinkSettings, connection: Connection) -> End {
    // What changed before the hello is in it.
    parts.journal.tend();
    parts.journal.take_id_changed();
    let context = Context {
        outbox: &parts.outbox,
        journal: &parts.journal,
        dispatcher: &parts.dispatcher,
        heartbeat: &parts.heartbeat,
        status: &parts.status,
        attributes: &parts.attributes,
        trust: &parts.trust,
        control: &parts.control,
        interval: settings.interval(),
        hello: settings.options.deadlines.hello,
        pong: settings.pong,
        message_limit: settings.options.message_limit,
        event_bytes: settings.event_bytes,
    };
    let hello = Hello {
        through: connection
            .route()
            .and_then(|route| Some(route.proxy.as_ref()?.to_string())),
        ..hello(parts, settings)
    };
    session::run(connection, &hello, &context)
}

/// Sleeps until the deadline, or until the control desk or a set clock wants an attempt at once.
fn wait(control: &Control, deadline: Option<Instant>, clock: Option<BorrowedFd<'_>>) {
    while !control.wants_retry() {
        control.pulse().beat();
        let mut set = PollSet::new();
        set.add(control.wake().as_fd(), IN);
        let question = set.add(control.question().as_fd(), IN);
        let clock = clock.map(|clock| set.add(clock, IN));
        match set.wait(deadline) {
            Ok(true) if clock.is_some_and(|clock| set.ready(clock) & IN != 0) => {
                log::info!("the clock was set: trying again");
                return;
            }
            Ok(true) => {
                if set.ready(question) != 0 {
                    control.question().clear();
                }
            }
            Ok(false) => return,
            Err(e) => {
                // poll fails only for lack of kernel memory: wait without it.
                log::error!("poll fails: {e}");
                std::thread::sleep(Duration::from_secs(1));
                return;
            }
        }
    }
}

/// While a phase lasts, the thread waits for the server and not for questions; each ends at its own deadline.
fn excuse(control: &Control, deadlines: &Deadlines, step: &Step) {
    let begun = step.outcome == Outcome::Begun;
    let until = begun.then(|| after(deadlines.of(step.phase)));
    control.pulse().busy_until(until);
    control.pulse().beat();
}

fn report(error: &ConnectError, settings: &LinkSettings) {
    log::warn!("cannot connect: {error}");
    if error.kind == Kind::Unregistered {
        let id = &settings.fingerprint;
        log::warn!(
            "this device is not registered: let it in with 'poseidon approve {id} --name NAME'"
        );
    }
}

fn untrusted(parts: &Parts, reason: &str) -> String {
    let own = parts.trust.device_id();
    // Its quotes are part of a command that people copy.
    let reason = reason.replace(char::is_control, "\u{FFFD}");
    match own {
        Some(own) => format!(
            "Poseidon does not take this device by its key: {reason}; if it should, there: 'poseidon trust accept NAME {own}'"
        ),
        None => format!("Poseidon does not take this device, which has no key: {reason}"),
    }
}

fn collision(parts: &Parts) -> String {
    format!(
        "another living agent has the instance id {} of this one, as a copied disk image makes it; {}",
        parts.instance.id, parts.clone_advice
    )
}

/// For the jitter; without a random source the middle does.
fn chance() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

fn hello(parts: &Parts, settings: &LinkSettings) -> Hello {
    let mut journal = parts.journal.report().state;
    if let Some(fleeting) = &parts.instance.fleeting {
        let reason = journal.reason.get_or_insert_default();
        if !reason.is_empty() {
            reason.push_str("; ");
        }
        reason.push_str("the instance id is in memory: ");
        reason.push_str(fleeting);
    }
    Hello {
        agent: AgentVersion::own(),
        instance: parts.instance.id.clone(),
        hostname: sysinfo::System::host_name().unwrap_or_default(),
        os: sysinfo::System::long_os_version().unwrap_or_else(|| "Linux".to_owned()),
        kernel: sysinfo::System::kernel_version().unwrap_or_default(),
        arch: std::env::consts::ARCH.to_owned(),
        boot_id: clock::boot_id(),
        clock_synced: clock::synced(),
        time: clock::now(),
        capabilities: parts.dispatcher.types(),
        plugins: parts.dispatcher.plugins(),
        journal: Some(journal),
        schedule: parts.scheduler.as_ref().map(|scheduler| Revision {
            revision: scheduler.revision(),
        }),
        scripts: parts.scripts.as_ref().map(|scripts| Revision {
            revision: scripts.revision().unwrap_or_default(),
        }),
        run: Some(parts.run.clone()),
        probe: false,
        heartbeat_seconds: settings.heartbeat_seconds,
        labels: settings.labels.clone(),
        ..Hello::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::identity::Identifier;
    use crate::sys::wake::Wake;

    fn control() -> Control {
        let identifier = Identifier::new("x").unwrap();
        let settings = LinkSettings::with_identifier(&Config::default(), &identifier).unwrap();
        Control::new(settings).unwrap()
    }

    /// Stands for the watch: readable once it is rung.
    #[test]
    fn a_set_clock_ends_the_wait() {
        let (control, clock) = (control(), Wake::new().unwrap());
        let begun = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| wait(&control, None, Some(clock.as_fd())));
            clock.ring();
        });
        // Again, as it stays readable until cleared.
        wait(
            &control,
            Some(begun + Duration::from_hours(1)),
            Some(clock.as_fd()),
        );
        assert!(begun.elapsed() < Duration::from_mins(30));
    }

    #[test]
    fn without_one_it_lasts_to_its_end_or_to_an_order() {
        let (control, clock) = (control(), Wake::new().unwrap());
        let watch = ClockWatch::new().unwrap();
        for watched in [None, Some(clock.as_fd()), Some(watch.as_fd())] {
            let end = Instant::now() + Duration::from_millis(20);
            wait(&control, Some(end), watched);
            assert!(Instant::now() >= end);
        }
        control.stop();
        wait(&control, None, Some(clock.as_fd()));
    }
}

//! The daemon: puts the parts together, waits, and ends them in order.

use crate::acts::{Actor, Acts, Deed, Stage};
use crate::config::Config;
use crate::dispatch::Dispatcher;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::events::intake::Intake;
use crate::external::{self, Hub};
use crate::heartbeat::{Heartbeat, Sources};
use crate::identity::{self, Instance};
use crate::job::{self, Pool};
use crate::journal::{self, Journal};
use crate::link::control::Control;
use crate::link::settings::LinkSettings;
use crate::link::status::LinkStatus;
use crate::link::{Resolver, supervisor};
use crate::local::server::{self, Socket};
use crate::message::id;
use crate::message::payload::{COMMAND, SCRIPT};
use crate::metrics::Metrics;
use crate::outbox::{Limits, Outbox};
use crate::plugin::builtin::{self, Modules};
use crate::policy::{self, Policy};
use crate::relay::Relay;
use crate::schedule::{self, Scheduler};
use crate::scripts::{Attributes, Repository};
use crate::service::{self, Service, notify::Notify, watchdog::Part};
use crate::sys;
use crate::sys::poll::{IN, PollSet};
use crate::sys::process;
use crate::sys::signal::{SIGHUP, SIGINT, SIGTERM, Signals};
use crate::sys::wake::Wake;
use crate::thread::{Crew, LARGE_STACK, SMALL_STACK};
use crate::trust::Trust;
use crate::update::{self, Began, Trial, Watch};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Jobs get this long to end after SIGTERM when the agent stops. With what follows it stays within the 5 s that
/// procd gives before it kills.
const JOB_GRACE: Duration = Duration::from_secs(2);
/// How long the threads may take to end after that.
const THREADS_GRACE: Duration = Duration::from_secs(2);

/// The agent's place in the kernel's line when memory runs out, where neither a setting nor a service manager says
/// otherwise. Not -1000: one that leaks for ever must go at last.
const OOM_SCORE_ADJ: i32 = -500;

/// How the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to.
    Stopped,
    /// A thread panicked; the rest was ended in order.
    Broken,
    /// It was asked to become a new process.
    Restarting,
}

/// Reads the configuration anew.
pub type Reload = Arc<dyn Fn() -> Result<Config> + Send + Sync>;

/// Runs the daemon until a signal or an internal error ends it. `apply_log` has the log go by a configuration. `program`
/// is this program's file.
///
/// Call it before any thread is started: it blocks the signals that it waits for.
pub fn run(
    config: &Config,
    program: &Path,
    reload: &Reload,
    apply_log: &dyn Fn(&Config),
) -> Result<Outcome> {
    let signals = Signals::receive(&[SIGTERM, SIGINT, SIGHUP])
        .map_err(|e| Error::because("cannot receive signals", e))?;
    let alarm = Arc::new(Alarm::new()?);
    let crew = {
        let alarm = Arc::clone(&alarm);
        Crew::new(move |thread| alarm.sound(thread))
    };
    crew.install_panic_hook();

    step_back_in_the_oom_line(config.oom_score_adj);

    let io = |what| move |e| Error::because(format!("cannot {what}"), e);
    // Held until the process ends: two agents with one identity would take each other's place for ever.
    let _lock = lock(&config.state)?;
    let updates = update::Settings::from_config(config, program);
    // Before all that a new program might not be up to.
    let began = if cfg!(feature = "update") {
        Trial::begin(&updates)
    } else {
        Began::Alone
    };
    let trial = match began {
        Began::Alone => None,
        Began::Trial(trial) => Some(trial),
        Began::TakenBack => return Ok(Outcome::Restarting),
    };
    let instance = identity::instance(&config.state)?;
    let link_settings = LinkSettings::from_config(config)?;
    log_start(config, &link_settings, &instance);
    let journal = Journal::open(&journal::Settings {
        goes_on: trial.as_ref().map(|trial| trial.token().to_owned()),
        ..journal_settings(config)
    })
    .map_err(io("open the journal"))?;
    let journal = Arc::new(journal);

    let queues = queues(config);
    let outbox = Arc::new(Outbox::new(queues).map_err(io("create a queue"))?);
    let policy = Arc::new(Policy::new(policy::Rules::new(config, program)));
    let gated = job::Settings {
        gate: Some(Arc::clone(&policy) as _),
        ..job_settings(config)
    };
    let pool = Pool::start(gated, &crew, Arc::clone(&journal));
    let variable = |name: &str| std::env::var_os(name);
    let notify = Notify::new(&variable);
    let bell = service::bell(&notify).map_err(io("create a wake-up"))?;
    let status = Arc::new(LinkStatus::with_bell(bell));
    let check = {
        let reload = Arc::clone(reload);
        move || LinkSettings::from_config(&reload()?).map(drop)
    };
    let acts = Acts::new(Arc::clone(&journal), Box::new(check));
    let acts = Arc::new(acts.map_err(io("create a wake-up"))?);
    let attributes = Arc::new(Attributes::open(&config.state));
    let scripts = Arc::new(Repository::open(
        &config.state,
        config.scripts.interpreters.clone(),
        Arc::clone(&attributes),
    ));
    let trust = Arc::new(Trust::new(&config.state));
    let control = Arc::new(Control::new(link_settings.clone()).map_err(io("create a wake-up"))?);
    let modules = Arc::new(Modules::new(&config.plugins.off));
    // What `cfg!` leaves out is not in the program either.
    let on = cfg!(feature = "schedule") && modules.has("schedule");
    let scheduler = on.then(|| {
        Scheduler::new(schedule::Settings {
            state: config.state.clone(),
            entries: config.schedule.clone(),
            seed: instance.id.clone(),
            workers: config.jobs.workers,
            pool: Arc::clone(&pool),
            scripts: Arc::clone(&scripts),
            journal: Arc::clone(&journal),
            crew: crew.clone(),
            works: {
                let modules = Arc::clone(&modules);
                Box::new(move |entry| {
                    let (name, kind) = match entry.script {
                        Some(_) => ("scripts", SCRIPT),
                        None => ("command", COMMAND),
                    };
                    let absent = || modules.absent(kind).map_or(Ok(()), Err);
                    if modules.has(name) { Ok(()) } else { absent() }
                })
            },
            permit: {
                let policy = Arc::clone(&policy);
                Box::new(move |entry| policy.check_run(entry))
            },
        })
    });
    let scheduler = scheduler.transpose().map_err(io("create a wake-up"))?;
    let on = cfg!(feature = "external") && modules.has("external");
    let hub = on.then(|| {
        let settings = external::Settings::from_config(config, &instance.id);
        let (attributes, link) = (Arc::clone(&attributes), Arc::clone(&status));
        Hub::new(settings, attributes, link, crew.clone())
    });
    let hub = hub.transpose().map_err(io("create a wake-up"))?;
    if let Some(hub) = &hub {
        modules.set_hub(Arc::clone(hub));
    }
    let on = cfg!(feature = "events") && modules.has("events");
    let events = on.then(|| {
        let (journal, crew) = (Arc::clone(&journal), crew.clone());
        Arc::new(Events::new(journal, crew, config.events.line_bytes))
    });
    let intake = events.as_ref().map(|events| {
        Intake::new(
            Arc::clone(events),
            &config.events,
            config.socket_group.clone(),
            config.state.clone(),
        )
    });
    let intake = intake.transpose().map_err(io("create a wake-up"))?;
    let intake = intake.flatten().map(Arc::new);
    let on = cfg!(feature = "relay") && modules.has("relay");
    let relay = on.then(|| Relay::new(&config.relay, Arc::clone(&control), crew.clone()));
    let relay = relay.transpose().map_err(io("create a wake-up"))?.flatten();
    let metrics = Arc::new(Metrics::new(config.metrics.max));
    let plugins = builtin::compose(&builtin::Parts {
        config,
        modules: &modules,
        crew: &crew,
        instance: &instance,
        fingerprint: &link_settings.fingerprint,
        link: &status,
        outbox: &outbox,
        pool: &pool,
        journal: &journal,
        policy: &policy,
        trust: &trust,
        control: &control,
        acts: &acts,
        scheduler: scheduler.as_ref(),
        scripts: &scripts,
        events: events.as_ref(),
        metrics: &metrics,
        relay: relay.as_ref(),
        updates,
    });
    let door = policy::Door::new(Arc::clone(&policy), Arc::clone(&pool));
    let dispatcher = Dispatcher::with_modules(plugins, Arc::clone(&modules));
    // Who asks is looked at before what is asked for.
    let dispatcher = dispatcher.guarded(Box::new(Arc::clone(&trust)));
    let dispatcher = Arc::new(dispatcher.guarded(Box::new(door)));
    let heartbeat = Arc::new(Heartbeat::new());

    let local_settings = server::Settings {
        path: config.socket.clone(),
        group: config.socket_group.clone(),
        clients: config.limits.local_clients,
        message_limit: config.limits.message_bytes,
        queues,
    };
    let socket = listen(&local_settings, config.url.is_empty())?;
    let local = Arc::new(server::Handle::new().map_err(io("create a wake-up"))?);

    let mut threads = Vec::new();
    if let Some(socket) = socket {
        let (local, dispatcher, pool) = (
            Arc::clone(&local),
            Arc::clone(&dispatcher),
            Arc::clone(&pool),
        );
        let thread = crew.spawn("local", SMALL_STACK, move || {
            server::serve(&socket, &local_settings, &dispatcher, &pool, &local);
        });
        threads.push(thread.map_err(io("start the thread local"))?);
    }
    let beat_thread = {
        let heartbeat = Arc::clone(&heartbeat);
        let sources = Sources {
            health: cfg!(feature = "health") && modules.has("health"),
            outbox: Arc::clone(&outbox),
            pool: Arc::clone(&pool),
            link: Arc::clone(&status),
            journal: Arc::clone(&journal),
            metrics,
        };
        crew.spawn("heartbeat", SMALL_STACK, move || heartbeat.run(&sources))
    };
    threads.push(beat_thread.map_err(io("start the thread heartbeat"))?);
    let plugins_dispatcher = Arc::clone(&dispatcher);
    let parts = supervisor::Parts {
        outbox: Arc::clone(&outbox),
        dispatcher,
        heartbeat: Arc::clone(&heartbeat),
        status: Arc::clone(&status),
        control: Arc::clone(&control),
        journal: Arc::clone(&journal),
        scheduler: scheduler.clone(),
        attributes,
        scripts: modules.has("scripts").then_some(scripts),
        trust,
        instance,
        run: id::random(),
        clone_advice: clone_advice(config),
    };
    let resolver = Resolver::new(crew.clone()).map_err(io("create a wake-up"))?;
    let link_thread = crew.spawn("link", LARGE_STACK, move || {
        supervisor::run(&parts, resolver);
    });
    threads.push(link_thread.map_err(io("start the thread link"))?);

    if let Some(intake) = &intake {
        let intake = Arc::clone(intake);
        let thread = crew.spawn("events", SMALL_STACK, move || intake.run());
        threads.push(thread.map_err(io("start the thread events"))?);
    }
    if let Some(relay) = &relay {
        let relay = Arc::clone(relay);
        let thread = crew.spawn("relay", SMALL_STACK, move || relay.run());
        threads.push(thread.map_err(io("start the thread relay"))?);
    }
    // The socket is there for them, and what they say has somewhere to go.
    if let Some(hub) = &hub {
        hub.begin(&plugins_dispatcher);
    }

    // Ready without a connection: a device without network boots all the same.
    let mut watched: Vec<&dyn Part> = vec![&*control, &*heartbeat, &*local, &*pool];
    if let Some(scheduler) = &scheduler {
        watched.push(&**scheduler);
    }
    if let Some(hub) = &hub {
        watched.push(&**hub);
    }
    watched.extend(intake.as_deref().map(|intake| intake as &dyn Part));
    watched.extend(relay.as_deref().map(|relay| relay as &dyn Part));
    let mut service = Service::begin(notify, Arc::clone(&status), watched, &variable);
    let mut actor = Actor {
        acts: &acts,
        link: &outbox,
        pool: &pool,
        grace: JOB_GRACE,
        system: &config.system,
        stage: Stage::Idle,
    };
    let apply = |config: &Config| {
        apply_log(config);
        config.policy.warn();
        if let Some(scheduler) = &scheduler {
            scheduler.configure(config.schedule.clone());
        }
        if let Some(hub) = &hub {
            hub.look();
        }
        policy.replace(config.policy.clone());
    };
    let reload = || read_anew(&control, &**reload, &apply);
    let mut trial = Watch::new(trial, &status, &journal);
    let outcome = wait(
        &signals,
        &alarm,
        &mut service,
        &mut actor,
        &mut trial,
        &reload,
    );
    if outcome == Outcome::Restarting {
        // For the service manager the same process goes on, and is ready again soon.
        service.reloading();
    } else {
        service.stopping();
    }
    // First what makes work, then what reports its end.
    threads.extend(scheduler.as_ref().and_then(|s| s.stop()));
    if let Some(intake) = &intake {
        intake.stop();
    }
    if let Some(relay) = &relay {
        relay.stop();
    }
    pool.stop(JOB_GRACE);
    threads.extend(hub.as_ref().and_then(|hub| hub.stop()));
    heartbeat.stop();
    control.stop();
    local.stop();
    join(threads);
    journal.close();
    log::info!("triton has stopped");
    Ok(outcome)
}

/// Sounded by a thread that panicked.
struct Alarm {
    sounded: AtomicBool,
    thread: Mutex<String>,
    wake: Wake,
}

impl Alarm {
    fn new() -> Result<Self> {
        Ok(Self {
            sounded: AtomicBool::new(false),
            thread: Mutex::default(),
            wake: Wake::new().map_err(|e| Error::because("cannot create a wake-up", e))?,
        })
    }

    fn sound(&self, thread: &str) {
        thread.clone_into(&mut self.thread.lock().unwrap_or_else(PoisonError::into_inner));
        self.sounded.store(true, Ordering::Release);
        self.wake.ring();
    }
}

fn wait(
    signals: &Signals,
    alarm: &Alarm,
    service: &mut Service<'_>,
    actor: &mut Actor<'_>,
    trial: &mut Watch<'_>,
    reload: &dyn Fn() -> Result<()>,
) -> Outcome {
    let acts = actor.acts;
    let reload = |service: &mut Service<'_>| {
        service.reloading();
        let refused = reload().err().map(|e| {
            log::error!("the old configuration stays in force: {e}");
            e.to_string()
        });
        acts.set_refused(refused.clone());
        service.reloaded(refused);
    };
    loop {
        match actor.turn() {
            Deed::None => {}
            Deed::Reload => {
                reload(service);
                continue;
            }
            Deed::Restart => return Outcome::Restarting,
            Deed::Exit => return Outcome::Stopped,
        }
        if trial.turn() {
            return Outcome::Restarting;
        }
        service.turn();
        let mut set = PollSet::new();
        set.add(signals.as_fd(), IN);
        set.add(alarm.wake.as_fd(), IN);
        set.add(actor.acts.wake(), IN);
        if let Some(changed) = service.changed() {
            set.add(changed, IN);
        }
        let deadline = [service.deadline(), actor.deadline(), trial.deadline()];
        if let Err(e) = set.wait(deadline.into_iter().flatten().min()) {
            log::error!("poll fails: {e}; stopping");
            return Outcome::Broken;
        }
        if alarm.sounded.load(Ordering::Acquire) {
            let thread = alarm.thread.lock().unwrap_or_else(PoisonError::into_inner);
            log::error!("the thread {thread} died of an internal error; stopping in order");
            return Outcome::Broken;
        }
        match signals.next() {
            Some(SIGHUP) => reload(service),
            Some(signal) => {
                log::info!("stopping (signal {signal})");
                return Outcome::Stopped;
            }
            None => {}
        }
    }
}

/// Puts the configuration in force as far as that goes without a restart.
fn read_anew(
    control: &Control,
    reload: &dyn Fn() -> Result<Config>,
    apply_log: &dyn Fn(&Config),
) -> Result<()> {
    let config = reload()?;
    let settings = LinkSettings::from_config(&config)?;
    apply_log(&config);
    log::info!("configuration read anew");
    control.reload(settings);
    Ok(())
}

/// Waits for the threads, but not for ever: one that hangs must not keep the process.
fn join(threads: Vec<JoinHandle<()>>) {
    let deadline = Instant::now() + THREADS_GRACE;
    for thread in threads {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                log::warn!("the thread {name} does not end; leaving it behind");
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

/// Locks the state folder. None where there is no folder to lock, so no identity in it that two could share.
fn lock(state: &Path) -> Result<Option<File>> {
    let path = state.join("lock");
    // A lock needs no right to write: a device whose disk has gone read-only is managed all the same. Nor does it need
    // a file of its own, where none can be made.
    let opened = identity::create_folder(state).and_then(|()| {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .or_else(|e| File::open(&path).map_err(|_| e))
            .or_else(|e| File::open(state).map_err(|_| e))
            .map_err(|e| Error::at("open", &path, e))
    });
    let file = match opened {
        Ok(file) => file,
        Err(e) => {
            log::error!("the state folder is not locked against a second agent: {e}");
            return Ok(None);
        }
    };
    match sys::lock::exclusive(&file) {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Error::new(format!(
            "another triton uses the state folder {}; stop it, or name another folder with --state",
            state.display()
        ))),
        Err(TryLockError::Error(e)) => Err(Error::at("lock", &path, e)),
    }
}

/// The local socket. None where its disk takes nothing: a device with such a fault has to be reachable all the more.
/// Whoever is `offline` would not be.
fn listen(settings: &server::Settings, offline: bool) -> Result<Option<Socket>> {
    match Socket::bind(settings) {
        Ok(socket) => Ok(Some(socket)),
        Err(e) if !offline && is_the_disks(&e) => {
            log::error!(
                "there is no local socket, so 'triton status', 'exec', 'put' and 'history' do not work here until the \
                 next start; repair its folder, or name a socket in memory with --socket: {e}"
            );
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

fn is_the_disks(error: &Error) -> bool {
    // What a wrong setting or another user leads to is told at once; all else, an I/O error above all, is the device's.
    error.io_kind().is_some_and(|kind| {
        !matches!(
            kind,
            ErrorKind::PermissionDenied | ErrorKind::NotADirectory | ErrorKind::InvalidInput
        )
    })
}

/// When memory runs out the agent should be among the last to go: it is the means of repair. Where its service
/// manager has given it a place, that holds.
fn step_back_in_the_oom_line(wanted: Option<i32>) {
    let place = process::oom_score_adj();
    let score = match (wanted, &place) {
        (Some(score), _) => score,
        (None, Ok(0)) => OOM_SCORE_ADJ,
        (None, _) => return,
    };
    match process::set_oom_score_adj(score) {
        Ok(()) => log::debug!("oom_score_adj is {score}"),
        // Not every agent runs as root; whoever asked for it should know.
        Err(e) if wanted.is_some() => {
            log::warn!(
                "oom_score_adj cannot be set to {score}: {e}; the kernel may end the agent when memory runs out"
            );
        }
        Err(e) => log::debug!("oom_score_adj cannot be set to {score}: {e}"),
    }
}

fn queues(config: &Config) -> Limits {
    Limits {
        control: config.limits.control_messages,
        output_bytes: config.limits.output_bytes,
    }
}

fn job_settings(config: &Config) -> job::Settings {
    let jobs = &config.jobs;
    job::Settings {
        workers: jobs.workers,
        queue: jobs.queue,
        grace: Duration::from_secs(jobs.grace_seconds),
        default_timeout: (jobs.timeout_seconds > 0)
            .then(|| Duration::from_secs(jobs.timeout_seconds)),
        collect_bytes: jobs.collect_bytes,
        end_bytes: end_bytes(config),
        nice: jobs.nice,
        oom_score_adj: jobs.oom_score_adj,
        environment: vec![("TRITON_SOCKET".into(), config.socket.clone().into())],
        ..job::Settings::default()
    }
}

/// The most that a job's end may take of the journal, on disk or in memory: the smallest one still has room for a job.
fn end_bytes(config: &Config) -> usize {
    let journal = &config.journal;
    let on_disk = usize::try_from(journal.bytes / 4).unwrap_or(usize::MAX);
    on_disk.min(journal.memory_bytes / 4 * 3)
}

/// Where the journal is, for the agent and its doctor.
pub fn journal_settings(config: &Config) -> journal::Settings {
    journal::Settings {
        folder: config.journal_folder(),
        state: config.state.clone(),
        bytes: config.journal.bytes,
        memory_bytes: config.journal.memory_bytes,
        sync: config.journal.sync,
        goes_on: None,
    }
}

fn clone_advice(config: &Config) -> String {
    format!(
        "on one of the two stop the agent, remove {} and the folder {}, and start it again",
        config.state.join("instance").display(),
        config.journal_folder().display()
    )
}

fn log_start(config: &Config, settings: &LinkSettings, instance: &Instance) {
    if let Some(reason) = &instance.fleeting {
        log::error!(
            "the state folder cannot be used, so this process is a new instance and the next one will be another; \
             repair it, or name another folder with --state: {reason}"
        );
    }
    log::info!(
        "triton {} starts: instance {}, identifier {} (fingerprint), socket {}",
        env!("CARGO_PKG_VERSION"),
        instance.id,
        settings.fingerprint,
        config.socket.display()
    );
    if settings.options.urls.is_empty() {
        log::info!("no url is configured: working offline, through the local socket only");
    }
    config.policy.warn();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_any_thread_ends_the_daemons_wait() {
        let signals = Signals::receive(&[SIGHUP]).unwrap();
        let alarm = Arc::new(Alarm::new().unwrap());
        let sounded = Arc::clone(&alarm);
        let crew = Crew::new(move |thread| sounded.sound(thread));
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            state: folder.path().to_owned(),
            ..Config::default()
        };
        let journal = Arc::new(Journal::open(&journal_settings(&config)).unwrap());
        let acts = Acts::new(Arc::clone(&journal), Box::new(|| Ok(()))).unwrap();
        let mut actor = Actor {
            acts: &acts,
            link: &Outbox::new(queues(&config)).unwrap(),
            pool: &Pool::start(job_settings(&config), &crew, Arc::clone(&journal)),
            grace: JOB_GRACE,
            system: &config.system,
            stage: Stage::Idle,
        };
        let thread = crew.spawn("weak", SMALL_STACK, || panic!("wanted by the test"));
        let mut service = Service::begin(Notify::default(), Arc::default(), vec![], &|_| None);
        let outcome = wait(
            &signals,
            &alarm,
            &mut service,
            &mut actor,
            &mut Watch::new(None, &LinkStatus::default(), &journal),
            &|| Ok(()),
        );
        assert_eq!(outcome, Outcome::Broken);
        assert_eq!(*alarm.thread.lock().unwrap(), "weak");
        thread.unwrap().join().unwrap();
    }
}

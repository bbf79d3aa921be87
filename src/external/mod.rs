//! External plugins: programs that the agent starts, supervises and speaks to, one message a line.
//!
//! One thread serves all of them in one poll(2), and there is none as long as there is no plugin. What it knows of each
//! others see in the [`Hub`]; what others want it to do they put there and ring. A request of a plugin's type is a job
//! ([`ask::Ask`]) whose worker talks to the plugin through its [`ask::Inlet`].
//!
//! ```text
//!  module.start, scan ─ fit? ─ start ─ hello ─ running ─ ends: waiting 1, 2, 4, 8 s ─ start …
//!                        └ failed        └ failed          └ five times within a minute of its start: failed
//! ```
//!
//! Invariants: a program that was started is reaped, and its process group killed before that, whatever ends it; the
//! kernel kills it when the agent dies; a job that was handed to it ends when it does.

pub mod ask;
mod fit;
mod limits;
mod program;
mod run;
mod types;

pub use types::check as check_type;

use crate::config::Config;
use crate::dispatch::Dispatcher;
use crate::link::status::LinkStatus;
use crate::message::Message;
use crate::message::payload::PluginState;
use crate::plugin::Peer;
use crate::scripts::Attributes;
use crate::service::watchdog::{Part, Pulse};
use crate::sys::wake::Wake;
use crate::thread::{Crew, SMALL_STACK};
use ask::Inlet;
use serde_json::{Value, json};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Orders that wait for the thread at most.
const ORDERS: usize = 64;
/// Most names that this process remembers. They are kept for its life.
const NAMES: usize = 256;

/// What plugins live by.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Settings {
    pub folder: PathBuf,
    /// How long one may take to its `hello`.
    pub hello: Duration,
    /// How long it may leave a `ping` unanswered or its input unread.
    pub patience: Duration,
    /// Messages a second that are read of one.
    pub rate: u32,
    pub message_limit: usize,
    /// From a job's time-out to its end; a `cancel` brings its own.
    pub grace: Duration,
    pub nice: i32,
    pub oom_score_adj: i32,
    pub socket: PathBuf,
    pub instance: String,
}

impl Settings {
    /// By the configuration.
    pub fn from_config(config: &Config, instance: &str) -> Self {
        let plugins = &config.plugins;
        Self {
            folder: plugins.folder.clone(),
            hello: Duration::from_secs(plugins.hello_seconds),
            patience: Duration::from_secs(plugins.patience_seconds),
            rate: u32::try_from(plugins.rate).unwrap_or(u32::MAX),
            message_limit: config.limits.message_bytes,
            grace: Duration::from_secs(config.jobs.grace_seconds),
            nice: config.jobs.nice,
            oom_score_adj: config.jobs.oom_score_adj,
            socket: config.socket.clone(),
            instance: instance.to_owned(),
        }
    }
}

/// How a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was started and has not said `hello`.
    Starting,
    /// It has said `hello`.
    Running,
    /// It ended, and is started again soon.
    Waiting,
    /// It is not started any more by itself.
    Failed,
    /// By `module.kill`.
    Stopped,
}

impl State {
    /// As in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// What others see of a plugin.
#[derive(Debug, Clone)]
struct View {
    name: &'static str,
    version: String,
    state: State,
    /// As it said last; kept while it waits for its next start.
    types: Vec<String>,
    pid: Option<i32>,
    /// Since when it is in this state.
    since: f64,
    restarts: u32,
    reason: Option<String>,
    inlet: Option<Arc<Inlet>>,
    /// Whether others have not seen this yet.
    changed: bool,
}

impl View {
    fn offers(&self) -> &[String] {
        match self.state {
            State::Starting | State::Running | State::Waiting => &self.types,
            State::Failed | State::Stopped => &[],
        }
    }
}

/// What somebody wants of the thread.
struct Order {
    start: bool,
    name: String,
    message: Message,
    from: Peer,
}

/// Between the thread and all others.
pub struct Hub {
    settings: Settings,
    attributes: Arc<Attributes>,
    link: Arc<LinkStatus>,
    crew: Crew,
    dispatcher: Mutex<Weak<Dispatcher>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    views: Mutex<Vec<View>>,
    orders: Mutex<Vec<Order>>,
    names: Mutex<Vec<&'static str>>,
    /// The folder is to be looked at.
    look: AtomicBool,
    stopping: AtomicBool,
    running: AtomicBool,
    wake: Arc<Wake>,
    pulse: Pulse,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hub")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is complete in itself: what a panicked thread leaves is sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Nothing runs before [`Hub::begin`].
    pub fn new(
        settings: Settings,
        attributes: Arc<Attributes>,
        link: Arc<LinkStatus>,
        crew: Crew,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            settings,
            attributes,
            link,
            crew,
            dispatcher: Mutex::default(),
            thread: Mutex::default(),
            views: Mutex::default(),
            orders: Mutex::default(),
            names: Mutex::default(),
            look: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            running: AtomicBool::new(false),
            wake: Arc::new(Wake::new()?),
            pulse: Pulse::default(),
        }))
    }

    /// Starts what is in the folder. What plugins say goes to `dispatcher`.
    pub fn begin(self: &Arc<Self>, dispatcher: &Arc<Dispatcher>) {
        *lock(&self.dispatcher) = Arc::downgrade(dispatcher);
        self.look();
    }

    /// Looks whether there are programs in the folder that are not known yet, and starts them.
    pub fn look(self: &Arc<Self>) {
        self.look.store(true, Ordering::Release);
        match fit::scan(&self.settings.folder) {
            Err(why) => log::error!("no plugins are started: {why}"),
            // Who has no plugins pays for no thread.
            Ok(found) if found.is_empty() => {}
            Ok(_) => self.stir(),
        }
    }

    /// Wakes the thread, or starts it.
    fn stir(self: &Arc<Self>) {
        let mut thread = lock(&self.thread);
        if thread.is_none() && !self.stopping.load(Ordering::Acquire) {
            let hub = Arc::clone(self);
            match self
                .crew
                .spawn("plugins", SMALL_STACK, move || run::run(&hub))
            {
                Ok(handle) => *thread = Some(handle),
                Err(e) => log::error!("no plugins are started: cannot start a thread: {e}"),
            }
        }
        drop(thread);
        self.wake.ring();
    }

    /// Ends all plugins; the thread is given to who waits for it.
    pub fn stop(&self) -> Option<JoinHandle<()>> {
        self.stopping.store(true, Ordering::Release);
        self.wake.ring();
        lock(&self.thread).take()
    }

    /// `module.kill` or `module.start`: answered by the thread, when it is done, also where there is no such plugin: who
    /// asks may not wait for the disk that the folder is on.
    pub fn order(self: &Arc<Self>, start: bool, name: String, message: &Message, from: &Peer) {
        let mut orders = lock(&self.orders);
        if orders.len() >= ORDERS {
            let code = crate::message::ErrorCode::Busy;
            let text = format!("{ORDERS} orders for plugins wait already; try again");
            return from.outbox.push(message.reply_error(code, text));
        }
        orders.push(Order {
            start,
            name,
            message: message.clone(),
            from: from.clone(),
        });
        drop(orders);
        self.stir();
    }

    /// The plugin that acts on a type, and how it is reached; nothing where it does not run at the moment.
    pub fn find(&self, kind: &str) -> Option<(&'static str, Option<Arc<Inlet>>)> {
        let views = lock(&self.views);
        let view = views
            .iter()
            .find(|view| view.offers().iter().any(|t| t == kind))?;
        Some((view.name, view.inlet.clone()))
    }

    /// The plugin that acted on a type and does so no more, and why not.
    pub fn gone(&self, kind: &str) -> Option<(&'static str, &'static str)> {
        let views = lock(&self.views);
        let view = views.iter().find(|v| v.types.iter().any(|t| t == kind))?;
        let how = match view.state {
            State::Stopped => "been stopped",
            _ => "failed",
        };
        Some((view.name, how))
    }

    /// The types that plugins act on.
    pub fn types(&self) -> Vec<String> {
        let views = lock(&self.views);
        views.iter().flat_map(|v| v.offers().to_vec()).collect()
    }

    /// For `hello`.
    pub fn states(&self) -> Vec<PluginState> {
        let views = lock(&self.views);
        let state = |view: &View| PluginState {
            name: view.name.to_owned(),
            version: view.version.clone(),
            state: view.state.as_str().to_owned(),
        };
        views.iter().map(state).collect()
    }

    /// For `module.list`.
    pub fn list(&self) -> Vec<Value> {
        let views = lock(&self.views);
        let one = |view: &View| {
            let mut one = json!({
                "name": view.name, "kind": "external", "version": view.version,
                "state": view.state.as_str(), "types": view.types, "since": view.since, "restarts": view.restarts,
            });
            if let Some(pid) = view.pid {
                one["pid"] = pid.into();
            }
            if let Some(reason) = &view.reason {
                one["reason"] = reason.clone().into();
            }
            one
        };
        views.iter().map(one).collect()
    }

    /// The name for the life of this process: an [`Origin`](crate::job::Origin) carries it around.
    fn intern(&self, name: &str) -> Option<&'static str> {
        let mut names = lock(&self.names);
        if let Some(known) = names.iter().find(|known| **known == name) {
            return Some(known);
        }
        if names.len() >= NAMES {
            return None;
        }
        let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
        names.push(kept);
        Some(kept)
    }
}

impl Part for Hub {
    fn ask(&self) {
        self.pulse.ask();
        self.wake.ring();
    }

    fn silent(&self, now: Instant) -> Option<String> {
        let running = self.running.load(Ordering::Acquire);
        self.pulse.silent(now, "plugins").filter(|_| running)
    }
}

//! Orders to the thread `link`.

use super::Route;
use super::settings::LinkSettings;
use crate::service::watchdog::{Part, Pulse};
use crate::sys::wake::Wake;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the thread is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    None,
    /// Send what waits, say bye, end.
    Stop,
    /// Begin anew with other settings.
    Reload,
}

/// The desk where orders wait.
pub struct Control {
    state: Mutex<State>,
    wake: Arc<Wake>,
    pulse: Pulse,
    /// Rung by the watchdog. Not `wake`: that one interrupts an attempt to connect.
    question: Wake,
}

struct State {
    stop: bool,
    reload: bool,
    retry: bool,
    settings: Arc<LinkSettings>,
    /// The last way to each URL that worked.
    routes: Vec<Route>,
}

impl Control {
    /// A desk without orders.
    pub fn new(settings: LinkSettings) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State {
                stop: false,
                reload: false,
                retry: false,
                settings: Arc::new(settings),
                routes: Vec::new(),
            }),
            wake: Arc::new(Wake::new()?),
            pulse: Pulse::default(),
            question: Wake::new()?,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rung as long as an order stands: it interrupts connecting, speaking and waiting alike.
    pub fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// The thread's sign of life.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Rung when the watchdog asks for it; whoever waits for orders waits for this too.
    pub fn question(&self) -> &Wake {
        &self.question
    }

    /// Orders the end.
    pub fn stop(&self) {
        self.state().stop = true;
        self.wake.ring();
    }

    /// Puts other settings in force. A connection that they would not change stays; who waits for the next
    /// attempt tries at once.
    pub fn reload(&self, settings: LinkSettings) {
        let mut state = self.state();
        if *state.settings != settings {
            state.settings = Arc::new(settings);
            state.routes.clear();
            state.reload = true;
        }
        state.retry = true;
        drop(state);
        self.wake.ring();
    }

    /// Orders a connection anew, with the same settings.
    pub fn reconnect(&self) {
        self.state().reload = true;
        self.wake.ring();
    }

    /// The order that holds now.
    pub fn order(&self) -> Order {
        let state = self.state();
        if state.stop {
            Order::Stop
        } else if state.reload {
            Order::Reload
        } else {
            Order::None
        }
    }

    /// The settings in force; from here on a reload counts as carried out.
    pub fn settings(&self) -> Arc<LinkSettings> {
        let mut state = self.state();
        state.reload = false;
        self.settle(&mut state);
        Arc::clone(&state.settings)
    }

    /// A way that has led to Poseidon.
    pub fn reached(&self, route: Route) {
        let mut state = self.state();
        state.routes.retain(|known| known.target != route.target);
        state.routes.push(route);
    }

    /// The settings in force and the ways that have worked with them, for who only looks.
    pub fn current(&self) -> (Arc<LinkSettings>, Vec<Route>) {
        let state = self.state();
        (Arc::clone(&state.settings), state.routes.clone())
    }

    /// A connection stands: trying at once is no wish any more.
    pub fn forget_retry(&self) {
        let mut state = self.state();
        if state.retry {
            self.settle(&mut state);
        }
    }

    fn settle(&self, state: &mut State) {
        state.retry = false;
        if !state.stop && !state.reload {
            self.wake.clear();
        }
    }

    /// Whether to try again before the time.
    pub fn wants_retry(&self) -> bool {
        let state = self.state();
        state.retry || state.reload || state.stop
    }
}

impl Part for Control {
    fn ask(&self) {
        self.pulse.ask();
        self.question.ring();
    }

    fn silent(&self, now: Instant) -> Option<String> {
        self.pulse.silent(now, "link")
    }
}

//! Nodes behind this node: an HTTP proxy that connects to this agent's own Poseidon and to nothing else.
//!
//! What it carries is theirs (`docs/protocol.md`, section 8): each node keeps its own connection, identifier and key, and
//! with wss this agent sees only ciphertext. A relay may itself reach Poseidon through another one. It goes only where its
//! own connection has been, by the address and the proxy that worked: nothing is looked up for strangers.

mod carry;
mod request;

use crate::config;
use crate::link::control::Control;
use crate::link::settings::LinkSettings;
use crate::link::{self, Kind, Options, Patience, Route, Socket, Stream as _, Target};
use crate::service::watchdog::{Part, Pulse};
use crate::sys::clock;
use crate::sys::poll::{IN, PollSet, after};
use crate::sys::wake::Wake;
use crate::thread::{Crew, SMALL_STACK};
use carry::Moved;
use request::Refusal;
use serde_json::{Value, json};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Pause between attempts to listen: an address may come with the network.
const RETRY: Duration = Duration::from_secs(10);
/// Pause where a connection cannot be taken for lack of descriptors or memory.
const BREATH: Duration = Duration::from_secs(1);
/// An answer has so long to be taken.
const ANSWER: Duration = Duration::from_secs(2);
/// Connections beyond the limit that are told that it is reached; those beyond are closed at once.
const SPARE: usize = 4;
/// What was refused is told in so many characters.
const REASON_LENGTH: usize = 200;

/// The relay: what it works by, what it carries, and what ends it.
pub struct Relay {
    listen: SocketAddr,
    connections: usize,
    control: Arc<Control>,
    crew: Crew,
    /// Rung to end it, and never cleared.
    stop: Arc<Wake>,
    question: Wake,
    pulse: Pulse,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Why nobody is listened to.
    problem: Option<String>,
    refused: u64,
    /// Why the last one was.
    reason: Option<String>,
    nodes: Vec<Node>,
    /// The number of the next one.
    next: u64,
}

/// One that comes through here.
struct Node {
    number: u64,
    address: SocketAddr,
    since: f64,
    moved: Moved,
}

impl Relay {
    /// None where no address is configured. Where to go is asked of `control` for each connection.
    pub fn new(
        settings: &config::Relay,
        control: Arc<Control>,
        crew: Crew,
    ) -> io::Result<Option<Arc<Self>>> {
        let Some(listen) = settings.listen else {
            return Ok(None);
        };
        Ok(Some(Arc::new(Self {
            listen,
            connections: settings.connections,
            control,
            crew,
            stop: Arc::new(Wake::new()?),
            question: Wake::new()?,
            pulse: Pulse::default(),
            state: Mutex::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends [`Self::run`] and all connections.
    pub fn stop(&self) {
        self.stop.ring();
    }

    /// For `agent.status`.
    pub fn report(&self) -> Value {
        let state = self.state();
        let nodes = state.nodes.iter().map(|node| {
            json!({
                "address": node.address.to_string(), "since": node.since,
                "up": node.moved.up, "down": node.moved.down,
            })
        });
        json!({
            "listen": self.listen.to_string(), "problem": state.problem, "limit": self.connections,
            "refused": state.refused, "reason": state.reason, "nodes": nodes.collect::<Vec<_>>(),
        })
    }

    /// The body of the thread `relay`. Each connection has a thread of its own, which waits for all of its way by itself.
    pub fn run(self: &Arc<Self>) {
        let mut listener: Option<TcpListener> = None;
        // Until then nothing is accepted, or tried.
        let mut rest: Option<Instant> = None;
        loop {
            self.pulse.beat();
            if rest.is_some_and(|until| Instant::now() >= until) {
                rest = None;
            }
            if listener.is_none() && rest.is_none() {
                listener = self.bind();
                rest = listener.is_none().then(|| after(RETRY));
            }
            let mut set = PollSet::new();
            let stop = set.add(self.stop.as_fd(), IN);
            let question = set.add(self.question.as_fd(), IN);
            let door = listener.as_ref().filter(|_| rest.is_none());
            let ready = door.map(|door| set.add(door.as_fd(), IN));
            if let Err(e) = set.wait(rest) {
                log::error!("relay: poll fails: {e}; trying again in a second");
                std::thread::sleep(BREATH);
                continue;
            }
            if set.ready(stop) != 0 {
                return;
            }
            if set.ready(question) != 0 {
                self.question.clear();
            }
            if let Some(door) = door
                && ready.is_some_and(|place| set.ready(place) != 0)
            {
                match door.accept() {
                    Ok((stream, address)) => self.take(stream, address),
                    // It has gone again.
                    Err(e)
                        if matches!(
                            e.kind(),
                            ErrorKind::WouldBlock
                                | ErrorKind::Interrupted
                                | ErrorKind::ConnectionAborted
                        ) => {}
                    Err(e) => {
                        self.refuse(&format!("cannot take a connection: {e}"));
                        rest = Some(after(BREATH));
                    }
                }
            }
        }
    }

    fn bind(&self) -> Option<TcpListener> {
        let bound = TcpListener::bind(self.listen);
        let bound = bound.and_then(|door| door.set_nonblocking(true).map(|()| door));
        let mut state = self.state();
        match bound {
            Ok(door) => {
                log::info!(
                    "relay: other agents reach Poseidon at http://{}",
                    self.listen
                );
                state.problem = None;
                Some(door)
            }
            Err(e) => {
                let problem = format!(
                    "cannot listen at {} (relay.listen): {e}; trying again every {} s",
                    self.listen,
                    RETRY.as_secs()
                );
                if state.problem.as_ref() != Some(&problem) {
                    log::warn!("relay: {problem}");
                }
                state.problem = Some(problem);
                None
            }
        }
    }

    /// Gives a connection its thread.
    fn take(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let mut state = self.state();
        let others = state.nodes.len();
        if others >= self.connections + SPARE {
            drop(state);
            return self.refuse(&format!("{address}: too many at once"));
        }
        let number = state.next;
        state.next += 1;
        state.nodes.push(Node {
            number,
            address,
            since: clock::now(),
            moved: Moved::default(),
        });
        drop(state);
        let relay = Arc::clone(self);
        let thread = self.crew.spawn("relayed", SMALL_STACK, move || {
            relay.serve(stream, number, address, others >= relay.connections);
            relay.forget(number);
        });
        if let Err(e) = thread {
            self.forget(number);
            self.refuse(&format!("{address}: cannot start a thread: {e}"));
        }
    }

    fn forget(&self, number: u64) {
        self.state().nodes.retain(|node| node.number != number);
    }

    fn refuse(&self, reason: &str) {
        log::debug!("relay: refused: {reason}");
        let mut state = self.state();
        state.refused += 1;
        state.reason = Some(reason.chars().take(REASON_LENGTH).collect());
    }

    /// One connection from its request to its end.
    fn serve(&self, stream: TcpStream, number: u64, address: SocketAddr, full: bool) {
        let (settings, routes) = self.control.current();
        let near = Socket::accepted(stream, self.patience(settings.options.deadlines.http));
        let Ok(mut near) = near.inspect_err(|e| self.refuse(&format!("{address}: {e}"))) else {
            return;
        };
        let opened = self.open(&mut near, &settings, &routes, full);
        // The one before may be over: it was for the request.
        near.set_patience(Some(self.patience(ANSWER)));
        match opened {
            Ok((far, first)) => {
                log::debug!("relay: {address} is connected");
                let mut tell = |moved: Moved| {
                    let mut state = self.state();
                    let node = state.nodes.iter_mut().find(|node| node.number == number);
                    if let Some(node) = node {
                        node.moved = moved;
                    }
                };
                let ended = carry::carry(near, far, first, &self.stop, &mut tell);
                log::debug!("relay: {address} has ended: {ended}");
            }
            Err(refusal) => {
                self.refuse(&format!("{address}: {}", refusal.text));
                refusal.send(&mut near);
            }
        }
    }

    fn patience(&self, limit: Duration) -> Patience {
        Patience {
            deadline: after(limit),
            stop: Arc::clone(&self.stop),
        }
    }

    /// Reads what is asked for, and connects to it. With it comes what was sent before the answer.
    fn open(
        &self,
        near: &mut Socket,
        settings: &LinkSettings,
        routes: &[Route],
        full: bool,
    ) -> Result<(Socket, Vec<u8>), Refusal> {
        let (host, port, first) = request::read(near)?;
        if full {
            return Err(Refusal::full(self.connections));
        }
        let leads =
            |target: &Target| target.port() == port && target.host().eq_ignore_ascii_case(&host);
        if !settings.options.urls.iter().any(leads) {
            return Err(Refusal::elsewhere(&host, port));
        }
        let route = routes.iter().find(|route| leads(&route.target));
        let route = route.ok_or_else(Refusal::unknown)?;
        let far = link::reach(&hasty(&settings.options), route, &self.stop);
        let far = far.map_err(|e| match e.kind {
            Kind::Stopped => Refusal::stopped(),
            _ => Refusal::unreachable(e.phase, &e.message),
        })?;
        Ok((far, first))
    }
}

/// A node waits for one deadline, `connect.proxy_seconds`, while its relay has two phases: each takes half as long as
/// usual, so that the node hears why it failed.
fn hasty(options: &Options) -> Options {
    let mut options = options.clone();
    options.deadlines.tcp /= 2;
    options.deadlines.proxy /= 2;
    options
}

impl Part for Relay {
    fn ask(&self) {
        self.pulse.ask();
        self.question.ring();
    }

    fn silent(&self, now: Instant) -> Option<String> {
        self.pulse.silent(now, "relay")
    }
}

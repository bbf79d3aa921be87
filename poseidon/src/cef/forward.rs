//! Handing events on to a SIEM: in the order of their arrival, at least once, from a cursor that survives restarts.
//!
//! The cursor moves when the other side's kernel has acknowledged everything. What its program has not read when it dies is
//! lost with it, so what was sent a short time before a break is sent again: `position` knows what.

pub use super::connect::Target;
use super::connect::{Connection, End};
use super::position::{Cursor, Position};
use super::syslog;
use crate::jobs::lock;
use crate::server::{App, stopped};
use crate::store::events::{EventFilter, Found, Seen, Window};
use crate::time::now;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_rustls::TlsConnector;

/// Events that are sent at a time, and rows that are looked through for them.
const GROUP: usize = 256;
const ROWS: u64 = 2000;
/// Pauses between attempts, in seconds. A connection that stood for a minute begins anew with the first.
const PAUSES: [u64; 7] = [1, 2, 5, 10, 20, 40, 60];
const STOOD: Duration = Duration::from_mins(1);
/// How often the log says that events still wait.
const REMIND: Duration = Duration::from_hours(1);
/// The store is asked again after this time, where it failed.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// What the server was told of its SIEM.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is.
    pub target: Target,
    /// Certificates of its authority, PEM; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// Events that are less severe stay here. What is unknown goes.
    pub severity: u8,
}

/// How it stands, for people.
#[derive(Debug, Clone, Default, Serialize)]
pub struct State {
    /// `off`, `connecting`, `connected`, `waiting` (for the next attempt).
    pub state: &'static str,
    /// Since when.
    pub since: f64,
    /// Why the last connection or attempt failed, and when; stays until another stands.
    pub error: Option<String>,
    /// When the next attempt is.
    #[serde(rename = "nextTry")]
    pub next_try: Option<f64>,
}

/// How it stands, shared.
pub struct Status(Mutex<State>);

impl Default for Status {
    fn default() -> Self {
        Self(Mutex::new(State {
            state: "off",
            since: now(),
            ..State::default()
        }))
    }
}

impl Status {
    /// As it is now.
    pub fn get(&self) -> State {
        lock(&self.0).clone()
    }

    fn set(&self, state: &'static str, error: Option<String>, pause: Option<Duration>) {
        *lock(&self.0) = State {
            state,
            since: now(),
            error,
            next_try: pause.map(|pause| now() + pause.as_secs_f64()),
        };
    }
}

struct Forwarder {
    app: Arc<App>,
    settings: Settings,
    tls: Option<TlsConnector>,
    newest: watch::Receiver<u64>,
    position: Position,
}

/// Sends until the server stops.
pub async fn run(app: Arc<App>, settings: Settings, tls: Option<TlsConnector>) {
    let mut stop = app.stop.clone();
    let forwarder = Forwarder {
        newest: app.cef.newest(),
        app,
        settings,
        tls,
        position: Position::default(),
    };
    tokio::select! {
        () = forwarder.run() => {}
        () = stopped(&mut stop) => {}
    }
}

impl Forwarder {
    async fn run(mut self) {
        let state = loop {
            match self.app.db.call(|store| store.event_state()).await {
                Ok(state) => break state,
                Err(e) => {
                    log::error!("events are not forwarded yet: {e}");
                    sleep(STORE_PAUSE).await;
                }
            }
        };
        self.position = Position::of(&state, Instant::now());
        let mut failures = 0;
        let mut warned: Option<Instant> = None;
        let mut error = None;
        loop {
            self.app
                .cef
                .forwarding
                .set("connecting", error.take(), None);
            let connection = Connection::open(&self.settings.target, self.tls.as_ref()).await;
            let reason = match connection {
                Ok(mut connection) => {
                    let began = Instant::now();
                    self.app.cef.forwarding.set("connected", None, None);
                    log::info!("events go to {}", self.settings.target);
                    warned = None;
                    let end = self.serve(&mut connection).await;
                    self.position.broke(end.in_order, Instant::now());
                    connection.close().await;
                    if began.elapsed() >= STOOD {
                        failures = 0;
                    }
                    end.reason
                }
                Err(reason) => reason,
            };
            let pause = Duration::from_secs(PAUSES[failures]);
            // Half of it at random: several Poseidons may have one SIEM.
            let pause = pause.mul_f64(0.5 + 0.5 * chance());
            if warned.is_none_or(|warned| warned.elapsed() >= REMIND) {
                warned = Some(Instant::now());
                log::warn!(
                    "events wait here, and do not go to {}: {reason}",
                    self.settings.target
                );
            }
            failures = (failures + 1).min(PAUSES.len() - 1);
            error = Some(reason);
            self.app
                .cef
                .forwarding
                .set("waiting", error.clone(), Some(pause));
            sleep(pause).await;
        }
    }

    /// Sends what there is and what comes, until the connection ends; returns how it did.
    async fn serve(&mut self, connection: &mut Connection) -> End {
        loop {
            let newest = *self.newest.borrow_and_update();
            if self.position.at() >= newest {
                let settles = self.position.settles();
                tokio::select! {
                    changed = self.newest.changed() => if changed.is_err() {
                        return "the server stops".to_owned().into();
                    },
                    end = connection.ended() => return end,
                    () = sleep_until(settles.unwrap_or_else(Instant::now)), if settles.is_some() => {
                        let cursor = self.position.settled();
                        self.store(cursor).await;
                    }
                }
                continue;
            }
            let (seen, last) = match self.next(newest).await {
                Ok(next) => next,
                Err(e) => {
                    log::error!("events are not forwarded: {e}");
                    sleep(STORE_PAUSE).await;
                    continue;
                }
            };
            if !seen.is_empty() {
                let mut bytes = Vec::new();
                for found in &seen {
                    syslog::frame(found, &mut bytes);
                }
                if let Err(reason) = connection.deliver(&bytes).await {
                    return reason.into();
                }
            }
            let rows = seen.iter().map(|one| one.row);
            // A cursor that cannot be stored is stored with the next.
            if let Some(cursor) = self.position.delivered(last, rows, Instant::now()) {
                self.store(cursor).await;
            }
        }
    }

    /// The next events to send, and up to which row that is.
    async fn next(&self, newest: u64) -> crate::store::Result<(Vec<Found>, u64)> {
        let at = self.position.at();
        let from_severity = self.settings.severity;
        self.app
            .db
            .call(move |store| {
                // What was pruned is jumped over.
                let first = store.event_state()?.oldest.max(at + 1);
                let window = Window {
                    first,
                    last: newest.min(first.saturating_add(ROWS)),
                    limit: GROUP,
                    newest_first: false,
                };
                let Seen { mut found, cut } = store.events(&EventFilter::default(), window)?;
                let last = match found.last() {
                    Some(one) if cut => one.row,
                    _ => window.last,
                };
                found.retain(|one| {
                    one.event
                        .severity
                        .is_none_or(|severity| severity >= from_severity)
                });
                Ok((found, last))
            })
            .await
    }

    async fn store(&self, cursor: Cursor) {
        let stored = self
            .app
            .db
            .call(move |store| store.events_sent(cursor.through, cursor.more, cursor.resend_after));
        if let Err(e) = stored.await {
            log::error!(
                "how far the SIEM has the events is not stored, so some may go to it again: {e}"
            );
        }
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    let id = triton::message::id::random();
    let digits = id
        .get(..8)
        .and_then(|digits| u32::from_str_radix(digits, 16).ok());
    f64::from(digits.unwrap_or(0)) / f64::from(u32::MAX)
}

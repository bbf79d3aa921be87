//! The connection to Poseidon. Below the session it knows bytes and deadlines, not message types.
//!
//! From the bottom: [`Stream`] is a socket or TLS over it, patient until a deadline while the connection is set
//! up and non-blocking afterwards; [`tls`] puts TLS over a socket; [`connect()`] walks the phases (dns, tcp,
//! proxy, tls, http), tries every address of every URL and says what went wrong; [`Connection`] is the
//! WebSocket that comes out; [`session`] speaks over it; [`supervisor`] does all that again and again, with
//! the pauses that [`backoff`] names.
//!
//! Invariants:
//! - Each phase ends at its deadline, however slowly the peer drips, and at once when the stop is rung.
//! - Memory is bounded by the message limit, whatever the peer declares or sends.
//! - The identifier is sent only after the server has been checked, and never shown.

pub mod backoff;
mod connect;
mod connection;
pub mod control;
pub mod feed;
pub mod head;
pub mod keepalive;
mod proxy;
mod resolver;
mod retry_after;
pub mod session;
pub mod settings;
pub mod status;
mod stream;
pub mod supervisor;
mod target;
pub mod tls;
mod upgrade;

pub use connect::{Outcome, Route, Step, connect, reach};
pub use connection::{Connection, Incoming, LinkError, Role};
pub use proxy::{Proxy, ProxySettings, ProxySource};
pub use resolver::Resolver;
pub use stream::{Patience, Socket, Stream};
pub use target::{PLACEHOLDER, Target, TargetError};
pub(crate) use target::{authority, split_authority};

use crate::secret::Secret;
use std::fmt;
use std::time::Duration;

/// A step on the way to a session, in the order in which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The host name becomes addresses.
    Dns,
    /// A TCP connection to one of them, or to the proxy.
    Tcp,
    /// The proxy is asked to connect further.
    Proxy,
    /// The TLS handshake; the server is checked.
    Tls,
    /// The upgrade from HTTP to WebSocket; the identifier is shown to the server.
    Http,
    /// `hello` and `welcome`; the session's part.
    Hello,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Hello => "hello",
        })
    }
}

/// What a failure means for the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 401 or 403: the server does not know the identifier (yet).
    Unregistered,
    /// 429 or 503 with `Retry-After`: the server says when to come again, an hour at most.
    RetryAfter(Duration),
    /// The certificate's dates do not hold, and the device's clock is the likely reason.
    Clock,
    /// The stop was rung.
    Stopped,
    /// Anything else.
    Other,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectError {
    /// The furthest phase that was reached.
    pub phase: Phase,
    /// What it means for the next try.
    pub kind: Kind,
    /// What failed, where, why and what to do, for a person. Without the phase.
    pub message: String,
}

impl ConnectError {
    pub(crate) fn new(phase: Phase, message: impl Into<String>) -> Self {
        Self {
            phase,
            kind: Kind::Other,
            message: message.into(),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.phase, self.message)
    }
}

impl std::error::Error for ConnectError {}

/// How long each phase may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For all addresses of one name.
    pub dns: Duration,
    /// For one address.
    pub tcp: Duration,
    /// For the proxy's answer, which includes its own connecting.
    pub proxy: Duration,
    /// For the handshake. Small processors need a second or two for it.
    pub tls: Duration,
    /// For the server's answer to the upgrade.
    pub http: Duration,
    /// For `welcome`; the session's part.
    pub hello: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let usual = Duration::from_secs(10);
        Self {
            dns: usual,
            tcp: usual,
            proxy: usual,
            tls: Duration::from_secs(15),
            http: usual,
            hello: usual,
        }
    }
}

impl Deadlines {
    /// The deadline of one phase.
    pub fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Dns => self.dns,
            Phase::Tcp => self.tcp,
            Phase::Proxy => self.proxy,
            Phase::Tls => self.tls,
            Phase::Http => self.http,
            Phase::Hello => self.hello,
        }
    }
}

/// How to reach a Poseidon, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Tried in turn.
    pub urls: Vec<Target>,
    /// The identifier (API key).
    pub identifier: Secret,
    /// Whether to go through a proxy.
    pub proxy: ProxySettings,
    /// How long each phase may take.
    pub deadlines: Deadlines,
    /// How the server is checked.
    pub tls: tls::TlsSettings,
    /// Longest text message that is accepted, in bytes.
    pub message_limit: usize,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// The device's public key, which the upgrade shows.
    pub device_key: Option<String>,
}

impl Options {
    /// The usual settings.
    pub fn new(urls: Vec<Target>, identifier: Secret) -> Self {
        Self {
            urls,
            identifier,
            proxy: ProxySettings::default(),
            deadlines: Deadlines::default(),
            tls: tls::TlsSettings::default(),
            message_limit: crate::message::DEFAULT_LIMIT,
            user_agent: concat!("triton/", env!("CARGO_PKG_VERSION")).into(),
            device_key: None,
        }
    }
}

/// A duration as a person writes it: `10 s`, `250 ms`.
fn spoken(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

//! The part of the configuration that concerns the connection.

use super::tls::TlsSettings;
use super::{Deadlines, Options, Proxy, ProxySettings, ProxySource, Target};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::identity::{self, Identifier};
use crate::message::sign::PublicKey;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Seconds between heartbeats where nobody names any.
const HEARTBEAT: u32 = 15;

/// What the thread `link` works by. A reload puts another one in force.
#[derive(Clone, PartialEq)]
pub struct LinkSettings {
    /// How to connect.
    pub options: Options,
    /// The identifier's face: what may be shown of it.
    pub fingerprint: String,
    /// Seconds between heartbeats that `hello` asks for.
    pub heartbeat_seconds: Option<u32>,
    /// How long a pong may take.
    pub pong: Duration,
    /// Bytes of events in one message.
    pub event_bytes: usize,
    /// Told in `hello`.
    pub labels: BTreeMap<String, String>,
    /// Keys that Poseidon may have.
    pub poseidon_keys: Vec<PublicKey>,
}

impl LinkSettings {
    /// Reads what `config` points to; generates the identifier where there is none.
    pub fn from_config(config: &Config) -> Result<Self> {
        let (identifier, _) = identity::identifier(config)?;
        Self::with_identifier(config, &identifier)
    }

    /// The same for an identifier at hand; creates nothing.
    pub fn with_identifier(config: &Config, identifier: &Identifier) -> Result<Self> {
        let connect = &config.connect;
        let options = Options {
            proxy: proxy(config)?,
            deadlines: Deadlines {
                dns: Duration::from_secs(connect.dns_seconds),
                tcp: Duration::from_secs(connect.tcp_seconds),
                proxy: Duration::from_secs(connect.proxy_seconds),
                tls: Duration::from_secs(connect.tls_seconds),
                http: Duration::from_secs(connect.http_seconds),
                hello: Duration::from_secs(connect.hello_seconds),
            },
            tls: tls(config)?,
            message_limit: config.limits.message_bytes,
            ..Options::new(targets(config)?, identifier.secret().clone())
        };
        Ok(Self {
            options,
            fingerprint: identifier.fingerprint(),
            heartbeat_seconds: config.heartbeat_seconds,
            pong: Duration::from_secs(connect.pong_seconds),
            event_bytes: config.events.batch_bytes,
            labels: config.labels.clone(),
            poseidon_keys: poseidon_keys(config)?,
        })
    }

    /// Heartbeat interval unless the server names one.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.heartbeat_seconds.unwrap_or(HEARTBEAT).into())
    }
}

/// The URLs of a configuration.
pub fn targets(config: &Config) -> Result<Vec<Target>> {
    let parse = |url: &String| {
        url.parse()
            .map_err(|e| Error::new(format!("a configured url {e}")))
    };
    config.url.iter().map(parse).collect()
}

/// The keys of a configuration.
pub fn poseidon_keys(config: &Config) -> Result<Vec<PublicKey>> {
    let parse = |key: &String| {
        key.parse()
            .map_err(|e| Error::new(format!("a configured key of Poseidon: {e}")))
    };
    config.trust.poseidon_keys.iter().map(parse).collect()
}

fn proxy(config: &Config) -> Result<ProxySettings> {
    let source = match config.proxy.url.as_deref() {
        None => ProxySource::Environment,
        Some("none") => ProxySource::Direct,
        Some(url) => {
            let proxy = url
                .parse::<Proxy>()
                .map_err(|e| Error::new(format!("the configured proxy {e}")))?;
            let is_own =
                |at: SocketAddr| proxy.port() == at.port() && proxy.host() == at.ip().to_string();
            if config.relay.listen.is_some_and(is_own) {
                return Err(Error::new(
                    "proxy.url is this agent's own relay.listen: name the next relay on the way to Poseidon, or none",
                ));
            }
            ProxySource::Via(proxy)
        }
    };
    Ok(ProxySettings {
        source,
        no_proxy: config.proxy.no_proxy.clone(),
    })
}

/// How the server is checked.
pub fn tls(config: &Config) -> Result<TlsSettings> {
    let mut settings = TlsSettings {
        ca_file: config.tls.ca_file.clone(),
        ..TlsSettings::default()
    };
    for pin in &config.tls.pins {
        let pin = pin
            .parse()
            .map_err(|e| Error::new(format!("a configured pin {e}")))?;
        settings.pins.push(pin);
    }
    Ok(settings)
}

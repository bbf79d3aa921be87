//! The payloads that begin and end a session.

use super::loose;
use crate::message::VERSION;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `hello`, agent to Poseidon: who connects.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Hello {
    pub agent: AgentVersion,
    /// Random per installation: several Tritons may share one identifier.
    pub instance: String,
    pub hostname: String,
    pub os: String,
    pub kernel: String,
    pub arch: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Whether the kernel's clock is disciplined (NTP); absent where it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_synced: Option<bool>,
    pub time: f64,
    /// Message types that the agent acts on.
    pub capabilities: Vec<String>,
    pub plugins: Vec<PluginState>,
    pub labels: BTreeMap<String, String>,
}

/// Version of the agent and of its protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct AgentVersion {
    pub version: String,
    pub protocol: u32,
}

impl AgentVersion {
    /// Of this build.
    pub fn own() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: VERSION,
        }
    }
}

/// One plugin in `hello` and `agent.status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct PluginState {
    pub name: String,
    pub version: String,
    pub state: String,
}

/// `welcome`, Poseidon to agent: what it is called and how often it reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Welcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "loose::texts"
    )]
    pub attributes: BTreeMap<String, String>,
    /// A fraction is cut off.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "loose::whole"
    )]
    pub heartbeat_seconds: Option<u32>,
    /// Heartbeats may leave out what has not changed.
    #[serde(
        skip_serializing_if = "std::ops::Not::not",
        deserialize_with = "loose::null_is_default"
    )]
    pub deltas: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<f64>,
}

/// `bye`, either side: a close that is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Bye {
    pub reason: String,
}

//! The payloads that begin and end a session.

use super::loose;
use crate::message::VERSION;
use crate::message::sign::Proof;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Seconds between heartbeats that either side may name.
pub const HEARTBEAT_SECONDS: RangeInclusive<u32> = 1..=86_400;

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
    /// Absent in agents without a journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalState>,
    /// Absent in agents without schedules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Revision>,
    /// Absent in agents without scripts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scripts: Option<Revision>,
    /// Random per process: one that comes back after another was seen is a second living agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Only a trial (`triton doctor`): it is welcomed and changes nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub probe: bool,
    /// Between heartbeats, where the device's own settings name it. A fraction is cut off.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "loose::whole"
    )]
    pub heartbeat_seconds: Option<u32>,
    /// The HTTP proxy on the way to Poseidon, such as another agent's relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// The device's key, by which this message is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// As the answer to the upgrade had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// How the device's key came to be this one, oldest first, as far as Poseidon has not confirmed it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Proof>,
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

/// What of Poseidon's the agent has, in `hello`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Revision {
    /// As Poseidon named it; empty where it has set nothing.
    pub revision: String,
}

/// The journal in `hello`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JournalState {
    /// Names what is remembered: another id, another memory.
    pub id: String,
    /// `disk` or `memory`.
    pub state: String,
    /// Why it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The oldest sequence; 0 where there is none.
    pub first: u64,
    /// The newest.
    pub last: u64,
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
    /// And, inside of what has changed, what has not.
    #[serde(
        skip_serializing_if = "std::ops::Not::not",
        deserialize_with = "loose::null_is_default"
    )]
    pub nested_deltas: bool,
    /// The last journal sequence that the server has stored. Absent: it acknowledges nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acked: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<f64>,
    /// Poseidon's key, by which this message is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Whether Poseidon has pinned the device's key…
    #[serde(
        skip_serializing_if = "std::ops::Not::not",
        deserialize_with = "loose::null_is_default"
    )]
    pub pinned: bool,
    /// …which is this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_key: Option<String>,
    /// How Poseidon's key came to be this one, oldest first.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "loose::null_is_default"
    )]
    pub keys: Vec<Proof>,
}

/// `bye`, either side: a close that is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Bye {
    pub reason: String,
}

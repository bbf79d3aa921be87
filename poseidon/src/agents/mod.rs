//! The agents: who may connect, who is there, and the conversation with each.

pub mod arrival;
pub mod ask;
pub mod connection;
pub mod data;
pub mod delivery;
mod handle;
mod hello;
pub mod identifiers;
pub mod named;
pub mod order;
pub mod provision;
pub mod pull;
pub mod recorder;
pub mod registry;
pub mod scope;
pub mod selector;
pub mod session;
pub mod settings;
pub mod trust;
pub mod upgrade;
pub mod welcome;

use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// What is shorter can be guessed: it is registered all the same, with a warning.
pub const GUESSABLE: usize = 16;
/// Digits of a fingerprint.
pub const FINGERPRINT: usize = 16;

/// SHA-256 of an identifier, 64 hex digits: all that is kept of it.
pub fn hash(identifier: &str) -> String {
    triton::message::id::hex(&Sha256::digest(identifier.as_bytes()))
}

/// The part of a hash that people see.
pub fn fingerprint(hash: &str) -> &str {
    hash.get(..FINGERPRINT).unwrap_or(hash)
}

/// Which agent: hash of its identifier and instance id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct Key {
    pub identifier: String,
    pub instance: String,
}

/// An agent as the API gives it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentView<'a> {
    pub name: &'a str,
    pub instance: &'a str,
    pub identifier: &'a str,
    pub state: &'static str,
    pub since: f64,
    pub last_seen: f64,
    pub address: &'a str,
    pub plain: bool,
    pub hello: Option<&'a RawValue>,
    pub health: Option<&'a RawValue>,
    pub health_at: Option<f64>,
    pub heartbeat_seconds: u32,
    pub attributes: &'a BTreeMap<String, String>,
    pub collision: Option<&'a arrival::Collision>,
    pub trust: trust::TrustView<'a>,
}

/// An identifier that knocked, as the API gives it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PendingView {
    pub id: String,
    pub address: String,
    pub first_seen: f64,
    pub last_seen: f64,
    pub attempts: u64,
    pub agent: String,
    /// Ids of the keys that were shown with this identifier, the last one last.
    pub key_ids: Vec<String>,
    #[serde(skip)]
    pub keys: Vec<triton::message::sign::PublicKey>,
}

/// A registered or refused identifier, as the API gives it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdentifierView {
    pub id: String,
    pub name: String,
    pub state: &'static str,
    pub created: f64,
    pub attributes: BTreeMap<String, String>,
    pub heartbeat_seconds: Option<u32>,
}

impl From<&crate::store::Identifier> for IdentifierView {
    fn from(row: &crate::store::Identifier) -> Self {
        Self {
            id: fingerprint(&row.hash).to_owned(),
            name: row.name.clone(),
            state: if row.refused { "refused" } else { "registered" },
            created: row.created,
            attributes: row.attributes.clone(),
            heartbeat_seconds: row.heartbeat,
        }
    }
}

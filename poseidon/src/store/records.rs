//! Records of the agents' journals, as they are stored.

use super::Job;
use super::events::Event;
use serde::Serialize;
use std::collections::HashMap;
pub use triton::message::payload::Record;

/// What came from one instance and becomes durable at once, with what it says of jobs.
#[derive(Debug)]
pub struct Batch {
    /// Hash of the identifier.
    pub identifier: String,
    /// Instance id.
    pub instance: String,
    /// IP and port, for an instance that the store does not know yet.
    pub address: String,
    /// When it came.
    pub received: f64,
    /// In the order in which they came.
    pub records: Vec<Record>,
    /// What those with the code 101 say, by their sequence.
    pub events: HashMap<u64, Event>,
    /// Tokens of jobs that the agent has.
    pub accepted: Vec<String>,
    /// Jobs that have ended.
    pub ended: Vec<Job>,
}

/// A batch is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The last sequence that is stored.
    pub acked: u64,
    /// The row of the newest new record; `None` where all were known.
    pub row: Option<u64>,
    /// The same of the newest new event.
    pub event: Option<u64>,
}

/// A record that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its place in the order of arrival at this store.
    pub row: u64,
    /// Hash of the identifier.
    pub identifier: String,
    /// Instance id.
    pub instance: String,
    /// When Poseidon stored it.
    pub received: f64,
    /// The record.
    pub record: Record,
}

/// Which records to find; all that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct RecordFilter {
    /// Only of this identifier…
    pub identifier: Option<String>,
    /// …and this instance.
    pub instance: Option<String>,
    /// Equal.
    pub token: Option<String>,
    /// Equal.
    pub code: Option<u32>,
    /// At or after.
    pub ctime: Option<f64>,
    /// At or after.
    pub etime: Option<f64>,
    /// Greater.
    pub id: Option<u64>,
    /// Arrived behind this row.
    pub after: Option<u64>,
    /// Smaller row.
    pub before: Option<u64>,
    /// Only of these instances; without it, of all.
    pub only: super::Only,
    /// Newest first, or oldest.
    pub order: Order,
    /// At most so many.
    pub limit: u32,
}

/// In which order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Oldest first.
    Asc,
    /// Newest first.
    #[default]
    Desc,
}

//! CEF events, as they are stored.

use super::Result;
use std::collections::{HashMap, HashSet};

/// An event that came, with what could be read of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// What it is called by: the sequence of its record.
    pub id: u64,
    /// When it happened, by its source's clock.
    pub time: f64,
    /// When the device stored it, by the device's clock.
    pub stored: f64,
    /// Name of the device when it came.
    pub agent: String,
    /// The host that it is about.
    pub host: String,
    /// How the device got it.
    pub source: String,
    /// What its header says; `None` for a line that is no CEF.
    pub header: Option<Header>,
    /// 0 to 10, where that is known.
    pub severity: Option<u8>,
    /// The whole line.
    pub line: String,
}

/// The header of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Header {
    /// Version of the format.
    pub format: u8,
    pub vendor: String,
    pub product: String,
    /// Version of the product.
    pub version: String,
    pub signature: String,
    pub name: String,
}

impl Event {
    /// What it takes in the store, about: the line and its words in the index.
    pub fn bytes(&self) -> u64 {
        let header = self.header.as_ref().map_or(0, |h| {
            h.vendor.len() + h.product.len() + h.version.len() + h.signature.len() + h.name.len()
        });
        (2 * self.line.len() + 2 * self.host.len() + self.source.len() + header + 200) as u64
    }
}

/// An event that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its place in the order of arrival.
    pub row: u64,
    /// Hash of the identifier.
    pub identifier: String,
    /// Instance id.
    pub instance: String,
    /// When Poseidon stored it.
    pub received: f64,
    /// The event.
    pub event: Event,
}

/// Which instances: by the hash of the identifier.
pub type Instances = HashMap<String, HashSet<String>>;

/// Which events to find; all that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// An expression of the index of words.
    pub words: Option<String>,
    /// At least.
    pub severity: Option<u8>,
    /// The whole, in any case.
    pub vendor: Option<String>,
    /// The whole, in any case.
    pub product: Option<String>,
    /// Only of these.
    pub instances: Option<Instances>,
    /// At or after.
    pub since: Option<f64>,
    /// Before or at.
    pub until: Option<f64>,
}

/// A piece of the store to look through. So one search holds nobody up, however much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The newest row to look at.
    pub last: u64,
    /// The oldest.
    pub first: u64,
    /// At most so many are found.
    pub limit: usize,
    /// The newest first.
    pub newest_first: bool,
}

/// What a window has.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// In their order.
    pub found: Vec<Found>,
    /// It was cut off behind the last of them: there were too many, or too long ones.
    pub cut: bool,
}

/// How things stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventState {
    /// Bytes that are stored, about.
    pub bytes: u64,
    /// The oldest and the newest row; 0 where there is none.
    pub oldest: u64,
    /// The newest row that ever was.
    pub newest: u64,
    /// Events that were pruned.
    pub pruned: u64,
    /// Of these, those that the SIEM did not have yet.
    pub pruned_unsent: u64,
    /// The SIEM has everything up to this row.
    pub sent_through: u64,
    /// What is behind this row it may not have read.
    pub resend_after: u64,
    /// Events that were sent to it.
    pub sent: u64,
}

/// What a store of events does.
pub trait EventStore {
    /// Looks for events.
    fn events(&mut self, filter: &EventFilter, window: Window) -> Result<Seen>;
    /// How things stand.
    fn event_state(&mut self) -> Result<EventState>;
    /// When the event of the oldest row at or above this one was received.
    fn event_received(&mut self, row: u64) -> Result<Option<f64>>;
    /// The SIEM has everything up to this row, `more` events of it were sent since the last time; behind `resend_after` it
    /// gets them again after a start.
    fn events_sent(&mut self, through: u64, more: u64, resend_after: u64) -> Result<()>;
    /// Deletes the oldest events while more than `keep` bytes are stored, at most so many at a time; `owed` says that they
    /// are owed to a SIEM. Returns how many, and how many of these the SIEM did not have.
    fn prune_events(&mut self, keep: u64, at_most: u32, owed: bool) -> Result<(u64, u64)>;
}

//! Schedules, as they are stored.

use super::Result;
use serde_json::value::RawValue;

/// What the devices of an identifier run by their own clocks.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Made from its entries: the same entries have the same.
    pub revision: String,
    /// The entries of `schedule.set`, a list.
    pub entries: Box<RawValue>,
    /// When it was set.
    pub changed: f64,
}

/// What a store does for schedules; `identifier` is a hash.
pub trait ScheduleStore {
    /// The schedule of an identifier; `None` where none was ever set.
    fn schedule(&mut self, identifier: &str) -> Result<Option<Schedule>>;
    /// Its revision alone.
    fn schedule_revision(&mut self, identifier: &str) -> Result<Option<String>>;
    /// Sets it.
    fn put_schedule(&mut self, identifier: &str, schedule: &Schedule) -> Result<()>;
}

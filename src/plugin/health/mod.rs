//! The device's health: what a `heartbeat` says.
//!
//! All of it is read from `/proc` and `/sys`, below a root that tests replace by a tree of their own. What a
//! device does not have, or says in a way that makes no sense, is absent: never zero. Each list is bounded, no file
//! is read beyond a limit, and nothing is asked of a network file system, which may hang.

mod delta;
mod disks;
mod memory;
mod network;
mod processors;
mod sensors;
mod source;

pub use delta::{Depth, apply, delta};

use crate::message::payload::Heartbeat;
use processors::Processors;
use source::Source;
use std::path::PathBuf;

/// Most entries of each list.
const LIST_LIMIT: usize = 64;

/// Reads the device's health.
#[derive(Debug)]
pub struct Health {
    source: Source,
    processors: Processors,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Of this device. Loads are told from now on.
    pub fn new() -> Self {
        Self::with_root("/")
    }

    /// Of the device whose `/proc` and `/sys` are below `root`.
    pub fn with_root(root: impl Into<PathBuf>) -> Self {
        let source = Source::new(root.into());
        let processors = Processors::new(&source);
        Self { source, processors }
    }

    /// The health now; loads are those since the last call. What the agent knows of itself is not in it.
    pub fn read(&mut self) -> Heartbeat {
        let source = &self.source;
        let memory = memory::read(source);
        let physical = memory.physical;
        let virtual_ = memory.with_swap;
        let files = file_descriptors(source);
        let (system_load, processor_load) = self.processors.read(source);
        Heartbeat {
            delta: false,
            uptime: uptime(source),
            system_load,
            processor_load,
            physical_memory_total: physical.map(|m| m.total),
            physical_memory_available: physical.map(|m| m.available),
            physical_memory_used: physical.map(memory::Memory::used),
            virtual_memory_total: virtual_.map(|m| m.total),
            virtual_memory_available: virtual_.map(|m| m.available),
            virtual_memory_used: virtual_.map(memory::Memory::used),
            file_descriptor_total: files.map(|(total, _)| total),
            file_descriptor_used: files.map(|(_, used)| used),
            file_systems: disks::read(source),
            load_average: load_average(source),
            interfaces: network::read(source),
            temperatures: sensors::read(source),
            processes: processes(source),
            agent: None,
            metrics: None,
        }
    }
}

/// A heartbeat that only says how long the device has been up.
pub fn uptime_only() -> Heartbeat {
    Heartbeat {
        uptime: uptime(&Source::new("/".into())),
        ..Heartbeat::default()
    }
}

/// Resident memory of this process in bytes.
pub fn agent_rss() -> Option<u64> {
    let statm = Source::new("/".into()).text("proc/self/statm")?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(crate::sys::space::page_size())
}

/// A number as it is worth sending: `digits` after the point.
fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// A number that is one, and not below zero.
fn number(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

fn uptime(source: &Source) -> Option<f64> {
    let text = source.text("proc/uptime")?;
    number(text.split_whitespace().next()?).map(f64::floor)
}

fn load_average(source: &Source) -> Option<Vec<f64>> {
    let text = source.text("proc/loadavg")?;
    let loads: Vec<f64> = text.split_whitespace().take(3).map_while(number).collect();
    (loads.len() == 3).then_some(loads)
}

/// The most there can be, and those in use.
fn file_descriptors(source: &Source) -> Option<(u64, u64)> {
    let text = source.text("proc/sys/fs/file-nr")?;
    let mut fields = text.split_whitespace().map(str::parse::<u64>);
    let (allocated, unused, most) = (
        fields.next()?.ok()?,
        fields.next()?.ok()?,
        fields.next()?.ok()?,
    );
    Some((most, allocated.saturating_sub(unused)))
}

fn processes(source: &Source) -> Option<u64> {
    let is_number = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    let count = source.names("proc")?.filter(|n| is_number(n)).count() as u64;
    // Not even we ourselves: then this is no /proc.
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests;

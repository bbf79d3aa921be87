//! The payload of a heartbeat.

use serde::{Deserialize, Serialize};

/// `heartbeat`: the system's health. Bytes, seconds, loads as 0..1; what a device cannot give is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Heartbeat {
    /// Only what changed since the last heartbeat on this connection.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub delta: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime: Option<f64>,
    /// Share of all processors in use since the last heartbeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_load: Option<f64>,
    /// The same per processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor_load: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physical_memory_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physical_memory_available: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physical_memory_used: Option<u64>,
    /// Physical memory and swap together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_memory_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_memory_available: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_memory_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_descriptor_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_descriptor_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_systems: Option<Vec<FileSystem>>,
    /// Over 1, 5 and 15 minutes, as in `/proc/loadavg`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_average: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<Interface>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperatures: Option<Vec<Temperature>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentHealth>,
    /// What scripts and plugins measure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<Metric>>,
}

/// A mounted file system; sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct FileSystem {
    pub mount: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The device or source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space_used: Option<u64>,
    /// Available to ordinary users, as `df` shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space_available: Option<u64>,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Interface {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_errors: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_errors: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    pub addresses: Vec<String>,
}

/// A temperature sensor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Temperature {
    pub label: String,
    pub celsius: f64,
}

/// A number that a script or plugin has measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Metric {
    pub name: String,
    pub value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// The agent about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct AgentHealth {
    /// Resident memory in bytes.
    pub rss: u64,
    /// Messages waiting to be sent.
    pub queue: u64,
    /// Jobs running or waiting.
    pub jobs: u64,
    pub reconnects: u64,
}

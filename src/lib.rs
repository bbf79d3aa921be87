//! Triton: a remote-management agent for small devices. `ARCHITECTURE.md` has the map of the house.

mod acts;
pub mod agent;
pub mod cef;
pub mod cli;
pub mod config;
pub mod dates;
pub mod dispatch;
#[cfg(feature = "engine")]
mod engine;
pub mod error;
pub mod events;
pub mod external;
pub mod heartbeat;
pub mod identity;
pub mod job;
pub mod journal;
pub mod link;
pub mod local;
pub mod message;
pub mod metrics;
pub mod outbox;
pub mod plugin;
pub mod policy;
pub mod relay;
pub mod schedule;
pub mod scripts;
pub mod secret;
pub mod service;
pub mod sys;
pub mod thread;
pub mod transfer;
pub mod trust;
pub mod update;

//! Triton: a remote-management agent for small devices. `ARCHITECTURE.md` has the map of the house.

pub mod agent;
pub mod cli;
pub mod config;
pub mod dates;
pub mod dispatch;
pub mod error;
pub mod heartbeat;
pub mod identity;
pub mod job;
pub mod journal;
pub mod link;
pub mod local;
pub mod message;
pub mod outbox;
pub mod plugin;
pub mod secret;
pub mod service;
pub mod sys;
pub mod thread;
#[cfg(feature = "update")]
pub mod update;
pub mod transfer;

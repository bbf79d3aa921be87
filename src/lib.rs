//! Triton: a remote-management agent for small devices. `ARCHITECTURE.md` has the map of the house.

pub mod job;
pub mod link;
pub mod message;
pub mod outbox;
pub mod plugin;
pub mod sys;
pub mod thread;

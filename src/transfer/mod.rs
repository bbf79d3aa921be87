//! Content on its way between this device's files and a peer (`docs/protocol.md` section 6). All of it runs on workers:
//! each step asks its job whether to go on, and no link waits for a disk.

pub mod fetch;
mod meter;
mod patience;
#[cfg(test)]
pub(crate) mod stage;

pub use fetch::{Content, Pace, fetch, hash};
pub use meter::Meter;
pub use patience::Patience;

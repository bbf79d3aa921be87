//! The operating system: the only unsafe code of the agent, each block with its reason.
#![allow(unsafe_code)]

pub mod clock;
pub mod clock_watch;
pub mod dir;
pub mod lock;
pub mod net;
pub mod poll;
pub mod process;
pub mod signal;
pub mod socket;
pub mod space;
pub mod sync;
pub mod syslog;
pub mod user;
pub mod wake;

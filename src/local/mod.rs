//! The Unix socket: one message per line, in both directions. The `triton` command talks to the daemon here.

pub mod client;
mod lines;
pub mod server;

pub use lines::{Line, Lines};

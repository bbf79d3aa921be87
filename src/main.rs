//! The agent and its command.
fn main() {}

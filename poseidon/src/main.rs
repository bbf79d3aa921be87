//! Poseidon.
fn main() {}

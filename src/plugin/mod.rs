//! What acts on messages: one module for each group of message types.

pub mod health;

//! Files to and from the real agent, with a scripted central instance on the other side.

#[path = "../support/mod.rs"]
mod support;

mod central;
mod directory;
mod get;
mod put;
mod trouble;

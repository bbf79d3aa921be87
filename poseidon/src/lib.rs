//! Poseidon: the central instance that Triton agents connect to.
//!
//! - [`server`] listens, by TLS or plain, and owns the data folder.
//! - [`agents`] is who connects: identifiers, the registry of instances, the conversation with each.
//! - [`jobs`] is what was asked of them, with the output in files.
//! - [`blobs`] is content by its hash; [`repositories`] the scripts of each identifier, [`data`] what else it was given.
//! - [`schedules`] is what its devices run by their own clocks.
//! - [`batches`] is what is asked of many of them at once.
//! - [`cef`] is what devices report as events, and handing it on to a SIEM; [`metrics`] what heartbeats say over time.
//! - [`secrets`] encrypts what is for devices only.
//! - [`doors`] is who may call, as what, and the log of what was done.
//! - [`api`] is the HTTP interface for people and programs, `docs/api.md`.
//! - [`store`] is what survives a restart.
//! - [`cli`] is the command; it talks to a running server by the API. [`demo`] shows all of it.
//!
//! Nothing but the store's thread touches the database, and no lock is held while something is awaited.

pub mod agents;
pub mod api;
pub mod batches;
pub mod blobs;
pub mod cef;
pub mod cli;
pub mod data;
pub mod demo;
pub mod doors;
pub mod events;
pub mod jobs;
pub mod keyring;
pub mod metrics;
mod pieces;
pub mod repositories;
pub mod schedules;
pub mod secrets;
pub mod server;
pub mod store;
pub mod time;

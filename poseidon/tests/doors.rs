//! Poseidon's doors: tokens with roles and selectors, sessions, the audit log, secrets at rest.
#![allow(missing_docs)]

mod common;
#[path = "doors/audit.rs"]
mod audit;
#[path = "doors/roles.rs"]
mod roles;
#[path = "doors/scopes.rs"]
mod scopes;
#[path = "doors/sessions.rs"]
mod sessions;

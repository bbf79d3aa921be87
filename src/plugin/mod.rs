//! What acts on messages. The core knows plugins only by this trait.

pub mod acts;
pub mod agent;
pub mod command;
pub mod data;
pub mod engine;
pub mod files;
pub mod health;
pub mod history;
pub mod schedule;
pub mod scripts;
pub mod trust;
pub mod update;

pub use crate::job::Origin;
use crate::job::{Request, Work};
use crate::message::Message;
use crate::message::payload::PluginState;
use crate::outbox::Outbox;
use std::sync::Arc;

/// Who sent a message, and where the answers go.
#[derive(Clone)]
pub struct Peer {
    /// Takes the answers.
    pub outbox: Arc<Outbox>,
    /// Which side it is.
    pub origin: Origin,
}

impl Peer {
    /// The job that this peer asks for by `message`.
    pub fn request(&self, message: &Message, work: Work) -> Request {
        Request {
            token: message.id.clone(),
            conversation_id: message.conversation_id.clone(),
            work,
            name: None,
            holds: None,
            sink: Arc::clone(&self.outbox),
            origin: self.origin,
        }
    }
}

/// A part of the agent that acts on some message types.
pub trait Plugin: Send + Sync {
    /// Its name in `hello` and `status`.
    fn name(&self) -> &'static str;

    /// The message types it acts on, all in version 1.
    fn types(&self) -> &'static [&'static str];

    /// Those of them that it can act on here, for `hello`.
    fn offers(&self) -> &'static [&'static str] {
        self.types()
    }

    /// Answers into the peer's outbox, now or later. It must not block: what takes time is a job. Only the disk may be
    /// waited for, where something has to be durable before it is answered.
    fn handle(&self, message: &Message, from: &Peer);

    /// Whether an `error` of the peer was for this plugin, which has asked the peer for something. An error is never
    /// answered.
    fn error(&self, _: &Message, _: &Peer) -> bool {
        false
    }

    /// The connection to Poseidon has ended.
    fn disconnected(&self) {}

    /// How it is.
    fn state(&self) -> PluginState {
        PluginState {
            name: self.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: "running".to_owned(),
        }
    }
}

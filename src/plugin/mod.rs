//! What acts on messages. The core knows plugins only by this trait.

// The core, in every build. `health` also knows how heartbeats differ, which both sides need.
pub mod agent;
pub mod builtin;
pub mod health;
pub mod history;
pub mod jobs;
pub mod module;
pub mod trust;

#[cfg(feature = "acts")]
pub mod acts;
#[cfg(feature = "command")]
pub mod command;
#[cfg(feature = "data")]
pub mod data;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(any(feature = "events", feature = "metrics"))]
pub mod events;
#[cfg(feature = "external")]
pub mod external;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "schedule")]
pub mod schedule;
#[cfg(feature = "scripts")]
pub mod scripts;
#[cfg(feature = "update")]
pub mod update;

pub use crate::job::Origin;
use crate::job::{Request, Work};
use crate::message::Message;
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
            kind: message.kind.clone(),
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

    /// Whether it acts on this type.
    fn takes(&self, kind: &str) -> bool {
        self.types().contains(&kind)
    }

    /// Those that it can act on here and now, for `hello`.
    fn offers(&self) -> Vec<String> {
        self.types().iter().map(|&t| t.to_owned()).collect()
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
}

//! `agent.update`: the program replaces itself.

use super::{Peer, Plugin};
use crate::acts::Acts;
use crate::job::{Pool, Request, Work};
use crate::message::payload::{self, AGENT_UPDATE, Bounds};
use crate::message::{ErrorCode, Message};
use crate::transfer::Pace;
use crate::update::{self, Settings, Update};
use std::sync::{Arc, Mutex};

/// Hands updates to the pool.
pub struct Updates {
    pool: Arc<Pool>,
    settings: Arc<Settings>,
    pace: Pace,
    acts: Arc<Acts>,
    gate: Arc<Mutex<()>>,
}

impl Updates {
    /// By these settings; `acts` restart the agent.
    pub fn new(pool: Arc<Pool>, settings: Settings, pace: Pace, acts: Arc<Acts>) -> Self {
        Self {
            pool,
            settings: Arc::new(settings),
            pace,
            acts,
            gate: Arc::default(),
        }
    }

    fn request(&self, message: &Message, from: &Peer) -> Result<Request, payload::PayloadError> {
        let bounds = message.read::<Bounds>()?;
        let update = Update {
            settings: Arc::clone(&self.settings),
            request: message.read::<update::Request>()?,
            conversation: message.conversation_id.clone(),
            pace: self.pace.clone(),
            acts: Arc::clone(&self.acts),
            gate: Arc::clone(&self.gate),
        };
        Ok(from.request(message, Work::Task(Arc::new(update), bounds)))
    }
}

impl Plugin for Updates {
    fn name(&self) -> &'static str {
        "update"
    }

    fn types(&self) -> &'static [&'static str] {
        &[AGENT_UPDATE]
    }

    fn offers(&self) -> Vec<String> {
        if self.settings.keys.is_empty() {
            return Vec::new();
        }
        vec![AGENT_UPDATE.to_owned()]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        match self.request(message, from) {
            Ok(request) => self.pool.submit(request),
            Err(e) => from
                .outbox
                .push(message.reply_error(ErrorCode::Invalid, e.to_string())),
        }
    }
}

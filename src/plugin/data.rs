//! `data.request` and `data.response`: content on its way, in the conversation that it belongs to.

use super::{Peer, Plugin};
use crate::job::{Origin, Pool};
use crate::message::payload::{DATA_REQUEST, DATA_RESPONSE};
use crate::message::{ErrorCode, Message};
use std::sync::Arc;

/// Hands content and requests for it to the jobs that they belong to.
pub struct Data {
    pool: Arc<Pool>,
}

impl Data {
    /// For the jobs of `pool`.
    pub fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }
}

impl Plugin for Data {
    fn name(&self) -> &'static str {
        "data"
    }

    fn types(&self) -> &'static [&'static str] {
        &[DATA_REQUEST, DATA_RESPONSE]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        let Err(message) = self.pool.deliver(message.clone(), &from.outbox) else {
            return;
        };
        // An error in the conversation of a job that has just ended would look like its end, and might overtake it.
        if message.kind == DATA_REQUEST && !self.pool.knows(&message.conversation_id) {
            let text = "no job of this conversation gives content";
            from.outbox
                .push(message.reply_error(ErrorCode::NotFound, text));
        } else {
            log::debug!("a {} came behind the end of its job", message.kind);
        }
    }

    /// That Poseidon cannot give what was asked for.
    fn error(&self, message: &Message, from: &Peer) -> bool {
        from.origin == Origin::Poseidon && self.pool.deliver(message.clone(), &from.outbox).is_ok()
    }
}

//! `command` and `cancel`: jobs.

use super::{Peer, Plugin};
use crate::job::{Pool, Request, Work};
use crate::message::payload::{self, Cancel, Command, JobResult, Status};
use crate::message::{ErrorCode, Message};
use std::sync::Arc;

/// Hands commands to the pool.
pub struct Commands {
    pool: Arc<Pool>,
}

impl Commands {
    /// Runs them on `pool`.
    pub fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }

    fn run(&self, message: &Message, from: &Peer) {
        match message.read::<Command>() {
            Ok(command) => self.pool.submit(Request {
                token: message.id.clone(),
                conversation_id: message.conversation_id.clone(),
                work: Work::Command(command),
                name: None,
                holds: None,
                sink: Arc::clone(&from.outbox),
                origin: from.origin,
            }),
            Err(e) => from
                .outbox
                .push(message.reply_error(ErrorCode::Invalid, e.to_string())),
        }
    }

    /// The cancelled job ends in its own conversation; this one ends at once with a `result` or an `error`.
    fn cancel(&self, message: &Message, from: &Peer) {
        let answer = match message.read::<Cancel>() {
            Err(e) => message.reply_error(ErrorCode::Invalid, e.to_string()),
            Ok(cancel) => match self.pool.cancel(&cancel) {
                Ok(()) => {
                    let done = JobResult::without_process(Status::Succeeded, None);
                    message.reply(payload::RESULT, &done)
                }
                Err(error) => message.reply(payload::ERROR, &error),
            },
        };
        from.outbox.push(answer);
    }
}

impl Plugin for Commands {
    fn name(&self) -> &'static str {
        "command"
    }

    fn types(&self) -> &'static [&'static str] {
        &[payload::COMMAND, payload::CANCEL]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        if message.kind == payload::CANCEL {
            self.cancel(message, from);
        } else {
            self.run(message, from);
        }
    }
}

//! `command`: a job that is a process.

use super::{Peer, Plugin};
use crate::job::{Pool, Work};
use crate::message::payload::{self, Command};
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
}

impl Plugin for Commands {
    fn name(&self) -> &'static str {
        "command"
    }

    fn types(&self) -> &'static [&'static str] {
        &[payload::COMMAND]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        match message.read::<Command>() {
            Ok(command) => self
                .pool
                .submit(from.request(message, Work::Command(command))),
            Err(e) => from
                .outbox
                .push(message.reply_error(ErrorCode::Invalid, e.to_string())),
        }
    }
}

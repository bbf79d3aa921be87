//! `script`: a job that runs one of the device's scripts.

use super::{Peer, Plugin};
use crate::job::{Holds, Pool, Request, Work};
use crate::message::payload::{self, Command, ErrorCode, Parameters};
use crate::message::{Message, PayloadError};
use crate::scripts::Repository;
use std::sync::Arc;

/// Hands scripts to the pool.
pub struct Scripts {
    pool: Arc<Pool>,
    repository: Arc<Repository>,
}

impl Scripts {
    /// Runs those of `repository` on `pool`.
    pub fn new(pool: Arc<Pool>, repository: Arc<Repository>) -> Self {
        Self { pool, repository }
    }

    fn resolve(&self, message: &Message, from: &Peer) -> Result<Request, payload::Error> {
        let unreadable = |e: PayloadError| payload::Error::new(ErrorCode::Invalid, e.to_string());
        let asked: Parameters = message.read().map_err(unreadable)?;
        let rest: Command = message.read().map_err(unreadable)?;
        let (command, revision) = self.repository.command(&asked.name, asked.args, rest)?;
        let holds: Arc<dyn Holds> = revision;
        Ok(Request {
            name: Some(asked.name),
            holds: Some(holds),
            ..from.request(message, Work::Command(command))
        })
    }
}

impl Plugin for Scripts {
    fn name(&self) -> &'static str {
        "scripts"
    }

    fn types(&self) -> &'static [&'static str] {
        &[payload::SCRIPT]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        // Also what is refused: a token that ran when the script was still there is answered by how that ended.
        let request = self
            .resolve(message, from)
            .unwrap_or_else(|error| from.request(message, Work::Refused(error)));
        self.pool.submit(request);
    }
}

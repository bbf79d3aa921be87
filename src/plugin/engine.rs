//! `engine.command`: to a monitoring engine on this device.

use super::{Peer, Plugin};
use crate::engine::EngineCommand;
use crate::job::{Pool, Work};
use crate::message::payload::{self, Bounds, ErrorCode, Parameters};
use crate::message::{Message, PayloadError};
use std::path::PathBuf;
use std::sync::Arc;

/// Hands its commands to the pool.
pub struct Engine {
    pool: Arc<Pool>,
    /// Where a command goes that names no pipe.
    pipe: Option<PathBuf>,
}

impl Engine {
    /// Writes to `pipe` unless a request names another one.
    pub fn new(pool: Arc<Pool>, pipe: Option<PathBuf>) -> Self {
        Self { pool, pipe }
    }

    fn work(&self, message: &Message) -> Result<Work, payload::Error> {
        let unreadable = |e: PayloadError| payload::Error::new(ErrorCode::Invalid, e.to_string());
        let asked: Parameters = message.read().map_err(unreadable)?;
        let bounds: Bounds = message.read().map_err(unreadable)?;
        let pipe = asked.pipe.map(PathBuf::from).or_else(|| self.pipe.clone());
        let task = EngineCommand::new(&asked.command, pipe)?;
        Ok(Work::Task(Arc::new(task), bounds))
    }
}

impl Plugin for Engine {
    fn name(&self) -> &'static str {
        "engine"
    }

    fn types(&self) -> &'static [&'static str] {
        &[payload::ENGINE_COMMAND]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        let work = self.work(message).unwrap_or_else(Work::Refused);
        self.pool.submit(from.request(message, work));
    }
}

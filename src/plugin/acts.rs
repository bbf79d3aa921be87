//! `agent.reload`, `agent.restart`, `agent.exit`, `system.reboot`, `system.shutdown`.

use super::{Peer, Plugin};
use crate::acts::{ACTS, Act, Acts, Delayed};
use crate::job::{Pool, Work};
use crate::message::payload::{self, Bounds, ErrorCode, Parameters};
use crate::message::{Message, PayloadError};
use std::sync::Arc;

/// Longest delay, in seconds.
const LONGEST: f64 = 86_400.0;
/// What a delay has for itself where the request names no time-out: the device's usual one would cut it short.
const SLACK: f64 = 60.0;

/// Makes jobs of acts.
pub struct Doer {
    pool: Arc<Pool>,
    acts: Arc<Acts>,
}

impl Doer {
    /// Hands them to `acts` when their time has come.
    pub fn new(pool: Arc<Pool>, acts: Arc<Acts>) -> Self {
        Self { pool, acts }
    }

    fn work(&self, message: &Message, act: Act) -> Result<Work, payload::Error> {
        let unreadable = |e: PayloadError| payload::Error::new(ErrorCode::Invalid, e.to_string());
        let asked: Parameters = message.read().map_err(unreadable)?;
        let mut bounds: Bounds = message.read().map_err(unreadable)?;
        let seconds = asked.delay_seconds.unwrap_or_default();
        if !(0.0..=LONGEST).contains(&seconds) {
            let text = format!("delaySeconds goes from 0 to {LONGEST}");
            return Err(payload::Error::new(ErrorCode::Invalid, text));
        }
        bounds.timeout_seconds.get_or_insert(seconds + SLACK);
        let task = Delayed {
            act,
            seconds,
            token: message.id.clone(),
            acts: Arc::clone(&self.acts),
        };
        Ok(Work::Task(Arc::new(task), bounds))
    }
}

impl Plugin for Doer {
    fn name(&self) -> &'static str {
        "acts"
    }

    fn types(&self) -> &'static [&'static str] {
        &[
            payload::AGENT_RELOAD,
            payload::AGENT_RESTART,
            payload::AGENT_EXIT,
            payload::SYSTEM_REBOOT,
            payload::SYSTEM_SHUTDOWN,
        ]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        let Some((_, act)) = ACTS.iter().find(|(name, _)| *name == message.kind) else {
            return;
        };
        let work = self.work(message, *act).unwrap_or_else(Work::Refused);
        self.pool.submit(from.request(message, work));
    }
}

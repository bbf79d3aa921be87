//! `cancel`: for any job; and `progress`, which a job's process says of itself.

use super::{Peer, Plugin};
use crate::job::{Origin, Pool};
use crate::message::payload::{self, Cancel, JobResult, Parameters, Progress, Status};
use crate::message::{ErrorCode, Message};
use std::sync::Arc;

/// Longest text of a progress, in characters; the rest is cut off.
const PROGRESS_TEXT: usize = 256;

/// Hands both to the pool.
pub struct Jobs {
    pool: Arc<Pool>,
}

impl Jobs {
    /// For those of `pool`.
    pub fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }

    /// How far a job is, by its own words; of several the last counts.
    fn progress(&self, message: &Message) -> Result<(), payload::Error> {
        let invalid = |text: String| payload::Error::new(ErrorCode::Invalid, text);
        let said: Parameters = message.read().map_err(|e| invalid(e.to_string()))?;
        let percent = said.percent.filter(|p| (0.0..=100.0).contains(p));
        let percent = percent.ok_or_else(|| invalid("percent goes from 0 to 100".to_owned()))?;
        let text = said.message.unwrap_or_default();
        let progress = Progress {
            percent,
            message: text.chars().take(PROGRESS_TEXT).collect(),
        };
        if self.pool.progress(&said.job, progress) {
            return Ok(());
        }
        let text = format!("no job {:?} runs here", said.job);
        Err(payload::Error::new(ErrorCode::NotFound, text))
    }

    /// The cancelled job ends in its own conversation; this one ends at once with a `result` or an `error`.
    fn cancel(&self, message: &Message, from: &Peer) {
        let done = match message.read::<Cancel>() {
            Err(e) => Err(payload::Error::new(ErrorCode::Invalid, e.to_string())),
            Ok(cancel) => self.pool.cancel(&cancel),
        };
        answer(message, from, done);
    }
}

fn answer(message: &Message, from: &Peer, done: Result<(), payload::Error>) {
    from.outbox.push(match done {
        Ok(()) => {
            let done = JobResult::without_process(Status::Succeeded, None);
            message.reply(payload::RESULT, &done)
        }
        Err(error) => message.reply(payload::ERROR, &error),
    });
}

impl Plugin for Jobs {
    fn name(&self) -> &'static str {
        "jobs"
    }

    fn types(&self) -> &'static [&'static str] {
        &[payload::CANCEL, payload::PROGRESS]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        if message.kind == payload::CANCEL {
            return self.cancel(message, from);
        }
        if from.origin == Origin::Local {
            return answer(message, from, self.progress(message));
        }
        let text = "only a process of this device says how far it is";
        from.outbox
            .push(message.reply_error(ErrorCode::Refused, text));
    }
}

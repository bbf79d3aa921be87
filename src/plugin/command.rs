//! `command` and `cancel`: jobs; and `progress`, which a job's process says of itself.

use super::{Peer, Plugin};
use crate::job::{Origin, Pool, Work};
use crate::message::payload::{self, Cancel, Command, JobResult, Parameters, Progress, Status};
use crate::message::{ErrorCode, Message};
use std::sync::Arc;

/// Longest text of a progress, in characters; the rest is cut off.
const PROGRESS_TEXT: usize = 256;

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
            Ok(command) => self
                .pool
                .submit(from.request(message, Work::Command(command))),
            Err(e) => from
                .outbox
                .push(message.reply_error(ErrorCode::Invalid, e.to_string())),
        }
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

impl Plugin for Commands {
    fn name(&self) -> &'static str {
        "command"
    }

    fn types(&self) -> &'static [&'static str] {
        &[payload::COMMAND, payload::CANCEL, payload::PROGRESS]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        match message.kind.as_str() {
            payload::CANCEL => self.cancel(message, from),
            payload::PROGRESS if from.origin == Origin::Local => {
                answer(message, from, self.progress(message));
            }
            payload::PROGRESS => {
                let text = "only a process of this device says how far it is";
                from.outbox
                    .push(message.reply_error(ErrorCode::Refused, text));
            }
            _ => self.run(message, from),
        }
    }
}

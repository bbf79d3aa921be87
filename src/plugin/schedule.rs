//! `schedule.set` and `schedule.list`: what the device runs by its own clock.

use super::{Peer, Plugin};
use crate::message::payload::{self, Error, RESULT, SCHEDULE_LIST, SCHEDULE_SET};
use crate::message::{ErrorCode, Message};
use crate::schedule::{Scheduler, from_xml};
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers from the scheduler. Entries are on the disk before that is answered.
pub struct Schedules {
    scheduler: Arc<Scheduler>,
}

impl Schedules {
    /// Answers from `scheduler`.
    pub fn new(scheduler: Arc<Scheduler>) -> Self {
        Self { scheduler }
    }

    fn set(&self, message: &Message) -> Result<Message, Error> {
        let invalid = |e: payload::PayloadError| Error::new(ErrorCode::Invalid, e.to_string());
        let set = read(message).map_err(invalid)?;
        let data = self.scheduler.set(&set)?;
        let result = json!({ "status": "succeeded", "elapsedMs": 0, "data": data });
        Ok(message.reply(RESULT, &result))
    }
}

/// What `schedule.set` asks for, JSON or XML. The policy reads by it too.
pub fn read(message: &Message) -> Result<Value, payload::PayloadError> {
    let mut set: Value = message.read()?;
    if message
        .payload
        .as_deref()
        .unwrap_or_default()
        .trim_start()
        .starts_with('<')
    {
        typed(&mut set);
    }
    Ok(set)
}

/// In XML a list of one looks like no list, and everything is a text.
fn typed(set: &mut Value) {
    let Some(set) = set.as_object_mut() else {
        return;
    };
    let mut entries = match set.remove("entries") {
        Some(Value::Array(entries)) => entries,
        Some(Value::String(text)) if text.trim().is_empty() => Vec::new(),
        Some(one) => vec![one],
        None => return,
    };
    entries.iter_mut().for_each(from_xml);
    set.insert("entries".to_owned(), entries.into());
}

impl Plugin for Schedules {
    fn name(&self) -> &'static str {
        "schedule"
    }

    fn types(&self) -> &'static [&'static str] {
        &[SCHEDULE_SET, SCHEDULE_LIST]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        let answer = if message.kind == SCHEDULE_SET {
            self.set(message)
        } else {
            Ok(message.reply(SCHEDULE_LIST, &self.scheduler.list()))
        };
        let answer = answer.unwrap_or_else(|error| message.reply(payload::ERROR, &error));
        from.outbox.push(answer);
    }
}

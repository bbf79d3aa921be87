//! `event` and `metric`: what local clients and Poseidon have to say about this device.

use super::{Origin, Peer, Plugin};
use crate::events::Events as Store;
use crate::message::Message;
use crate::message::payload::{self, Error, ErrorCode};
use crate::metrics::Metrics as Table;
use serde_json::{Value, json};
use std::sync::Arc;

/// Stores events. They are written before they are answered, and synced as `docs/protocol.md` section 7 says.
pub struct Events {
    store: Arc<Store>,
}

impl Events {
    /// Stores in `store`.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

impl Plugin for Events {
    fn name(&self) -> &'static str {
        "events"
    }

    fn types(&self) -> &'static [&'static str] {
        &[payload::EVENT]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        let source = match from.origin {
            Origin::Poseidon => "poseidon",
            Origin::Plugin(name) => &format!("plugin/{name}"),
            _ => "command",
        };
        from.outbox.push(self.store.answer(message, source));
    }
}

/// Sets metrics.
pub struct Metrics {
    table: Arc<Table>,
}

impl Metrics {
    /// Sets them in `table`.
    pub fn new(table: Arc<Table>) -> Self {
        Self { table }
    }
}

impl Plugin for Metrics {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn types(&self) -> &'static [&'static str] {
        &[payload::METRIC]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        from.outbox.push(answer(&self.table, message));
    }
}

/// The answer to a `metric` message, whoever sent it.
pub fn answer(table: &Table, message: &Message) -> Message {
    let unreadable = |e: payload::PayloadError| Error::new(ErrorCode::Invalid, e.to_string());
    let asked = message.read::<Value>().map_err(unreadable);
    match asked.and_then(|asked| table.put(&asked)) {
        Ok(()) => message.reply(payload::RESULT, &json!({ "status": "succeeded" })),
        Err(error) => message.reply(payload::ERROR, &error),
    }
}

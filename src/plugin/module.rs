//! `module.list`, `module.kill` and `module.start`: the plugins themselves.

use super::builtin::{BUILTIN, Modules};
use super::{Peer, Plugin};
use crate::message::payload::{self, Error, MODULE_KILL, MODULE_LIST, MODULE_START, Parameters};
use crate::message::{ErrorCode, Message};
use serde_json::json;
use std::sync::Arc;

/// Answers from what is known of them.
pub struct Lister {
    modules: Arc<Modules>,
}

impl Lister {
    /// Answers from `modules`.
    pub fn new(modules: Arc<Modules>) -> Self {
        Self { modules }
    }

    /// Answered later by the thread of the plugins, unless there is an error.
    fn order(&self, message: &Message, from: &Peer) -> Result<(), Error> {
        let asked: Parameters = message
            .read()
            .map_err(|e| Error::new(ErrorCode::Invalid, e.to_string()))?;
        let name = asked.name;
        if BUILTIN.iter().any(|b| b.built && b.name == name) {
            let text = format!(
                "{name} is built in: it runs as long as the agent, unless plugins.off names it when that starts"
            );
            return Err(Error::new(ErrorCode::Refused, text));
        }
        let Some(hub) = self.modules.hub() else {
            return Err(Error::new(
                ErrorCode::NotFound,
                format!("there is no plugin {name:?}; module.list says which there are"),
            ));
        };
        hub.order(message.kind == MODULE_START, name, message, from);
        Ok(())
    }
}

impl Plugin for Lister {
    fn name(&self) -> &'static str {
        "module"
    }

    fn types(&self) -> &'static [&'static str] {
        &[MODULE_LIST, MODULE_KILL, MODULE_START]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        if message.kind == MODULE_LIST {
            let list = json!({ "modules": self.modules.list() });
            return from.outbox.push(message.reply(MODULE_LIST, &list));
        }
        if let Err(error) = self.order(message, from) {
            from.outbox.push(message.reply(payload::ERROR, &error));
        }
    }
}

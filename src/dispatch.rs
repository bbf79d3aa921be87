//! From a message to the plugin that acts on it.

use crate::message::payload::{self, PluginState};
use crate::message::{ErrorCode, Message, VERSION};
use crate::plugin::builtin::Modules;
use crate::plugin::{Peer, Plugin};
use std::sync::Arc;

/// Stands in front of the plugins.
pub trait Guard: Send + Sync {
    /// Whether a request goes on to its plugin; where it does not, it is answered. It must not block, as a plugin.
    fn lets_pass(&self, message: &Message, from: &Peer) -> bool;
}

/// Knows the plugins of this agent.
#[derive(Default)]
pub struct Dispatcher {
    plugins: Vec<Box<dyn Plugin>>,
    modules: Arc<Modules>,
    guards: Vec<Box<dyn Guard>>,
}

impl Dispatcher {
    /// Dispatches to `plugins`; where two act on a type, the first gets it.
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self::with_modules(plugins, Arc::default())
    }

    /// Dispatches to `plugins`; `modules` knows what else there could be.
    pub fn with_modules(plugins: Vec<Box<dyn Plugin>>, modules: Arc<Modules>) -> Self {
        Self {
            plugins,
            modules,
            guards: Vec::new(),
        }
    }

    /// Asks `guard` before each request, behind those that are asked already.
    #[must_use]
    pub fn guarded(mut self, guard: Box<dyn Guard>) -> Self {
        self.guards.push(guard);
        self
    }

    /// The types that can be acted on here.
    pub fn types(&self) -> Vec<String> {
        self.plugins.iter().flat_map(|p| p.offers()).collect()
    }

    /// How the plugins are.
    pub fn plugins(&self) -> Vec<PluginState> {
        self.modules.states()
    }

    /// Tells all that the connection to Poseidon has ended.
    pub fn disconnected(&self) {
        for plugin in &self.plugins {
            plugin.disconnected();
        }
    }

    /// Hands the message to its plugin, or answers why not. An `error` is logged and never answered: two sides
    /// that answer each other's errors would not stop.
    pub fn handle(&self, message: &Message, from: &Peer) {
        if message.kind == payload::ERROR {
            if self.plugins.iter().any(|p| p.error(message, from)) {
                return;
            }
            let text = message.payload.as_deref().unwrap_or("without payload");
            log::warn!("the peer says error: {}", shorten(text));
            return;
        }
        let kind = message.kind.as_str();
        let Some(plugin) = self.plugins.iter().find(|p| p.takes(kind)) else {
            if let Some(error) = self.modules.absent(kind) {
                log::warn!("a request was refused: {}", error.message);
                from.outbox.push(message.reply(payload::ERROR, &error));
                return;
            }
            log::warn!(
                "a message of the unknown type {:?} was refused",
                shorten(kind)
            );
            from.outbox.push(message.reply_error(
                ErrorCode::UnknownType,
                format!("this agent does not know the type {}", shorten(kind)),
            ));
            return;
        };
        if message.version != VERSION {
            from.outbox.push(message.reply_unsupported_version());
            return;
        }
        if self
            .guards
            .iter()
            .all(|guard| guard.lets_pass(message, from))
        {
            plugin.handle(message, from);
        }
    }
}

/// The beginning of a text from outside, for logs and errors.
fn shorten(text: &str) -> &str {
    let end = text
        .char_indices()
        .nth(200)
        .map_or(text.len(), |(at, _)| at);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Limits, Outbox};
    use crate::plugin::Origin;
    use std::sync::Arc;

    struct Echo;

    impl Plugin for Echo {
        fn name(&self) -> &'static str {
            "echo"
        }
        fn types(&self) -> &'static [&'static str] {
            &["echo"]
        }
        fn handle(&self, message: &Message, from: &Peer) {
            from.outbox.push(message.reply("echoed", &()));
        }
    }

    fn answer(message: &Message) -> Option<Message> {
        let outbox = Outbox::new(Limits {
            control: 9,
            output_bytes: 9,
        });
        let outbox = Arc::new(outbox.unwrap());
        outbox.set_online(true);
        let peer = Peer {
            outbox: Arc::clone(&outbox),
            origin: Origin::Local,
        };
        Dispatcher::new(vec![Box::new(Echo)]).handle(message, &peer);
        outbox.pop()
    }

    #[test]
    fn known_types_reach_their_plugin() {
        let message = Message::new("echo");
        let reply = answer(&message).unwrap();
        assert_eq!(reply.kind, "echoed");
        assert_eq!(reply.conversation_id, message.id);
    }

    #[test]
    fn nothing_is_ignored_but_errors_are_not_answered() {
        let code = |m: &Message| answer(m).unwrap().read::<payload::Error>().unwrap();
        assert_eq!(code(&Message::new("x")).code, ErrorCode::UnknownType);
        let newer = Message {
            version: 2,
            ..Message::new("echo")
        };
        let error = code(&newer);
        assert_eq!(error.code, ErrorCode::UnsupportedVersion);
        assert_eq!(error.detail.unwrap()["versions"][0], 1);
        assert_eq!(answer(&Message::new("error")), None);
    }
}

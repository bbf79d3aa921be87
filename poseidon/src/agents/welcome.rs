//! `welcome`: what Poseidon says to a device of that device, at first and whenever it changes. It is written when its
//! turn in the queue has come, by the session, so that it says what holds then and is signed under nobody's lock.

use super::connection::{Bond, Connection};
use super::registry::{Inner, Registry, agents_of};
use super::selector::Hello;
use super::settings::MAX_ATTRIBUTE_BYTES;
use super::{Key, fingerprint};
use crate::jobs::lock;
use crate::time::now;
use std::sync::Arc;
use triton::message::{EncodeError, Message, SMALLEST_LIMIT, payload};

/// Who is welcomed.
#[derive(Debug)]
pub struct Greeting {
    /// Its `hello`, without what it held.
    hello: Message,
    /// What it said there.
    said: Arc<Hello>,
    /// What it showed there.
    bond: Option<Arc<Bond>>,
    /// The last sequence of its journal that is stored, if it has one.
    acked: Option<u64>,
}

impl Greeting {
    pub(super) fn new(
        connection: &Connection,
        hello: &Message,
        said: Arc<Hello>,
        acked: Option<u64>,
    ) -> Box<Self> {
        let hello = Message {
            payload: None,
            ..hello.clone()
        };
        Box::new(Self {
            hello,
            said,
            bond: connection.bond(),
            acked,
        })
    }

    fn write(&self, welcome: &payload::Welcome) -> Result<String, EncodeError> {
        let mut reply = self.hello.reply(payload::WELCOME, welcome);
        if let Some(bond) = &self.bond {
            bond.own.key.sign(&mut reply, &bond.session);
        }
        reply.encode()
    }
}

/// A `welcome`, as it goes out.
pub(super) struct Welcome {
    pub text: String,
    /// Seconds between heartbeats that it names.
    pub interval: u32,
}

impl Registry {
    /// Welcomes who only tries whether it would be let in.
    pub(super) fn welcome_probe(
        &self,
        connection: &Connection,
        message: &Message,
        instance: &str,
        said: Hello,
    ) {
        let acked = self.acked(&Key {
            identifier: connection.identifier.clone(),
            instance: instance.to_owned(),
        });
        let greeting = Greeting::new(connection, message, Arc::new(said), Some(acked));
        connection.greet(greeting);
    }

    /// What an operator says of an identifier has changed: its agents that are up are to hear it by a further welcome.
    pub(super) fn welcome_again(&self, inner: &Inner, identifier: &str) {
        let row = inner.identifiers.get(identifier);
        for (_, agent) in agents_of(inner, identifier) {
            match &agent.connection {
                // It knows no welcome.
                Some(connection) if agent.row.plain => {
                    connection.set_interval(self.interval(row, &agent.said));
                }
                Some(connection) => connection.tell_again(),
                None => {}
            }
        }
    }

    /// What is said to a connection by now; nothing where it is over. A further one is without `acked`, so that no
    /// record is sent again.
    pub(super) fn welcome(
        &self,
        connection: &Connection,
        greeting: &Greeting,
        first: bool,
    ) -> Option<Welcome> {
        let newer = |bond: Arc<Bond>| bond.session != greeting.hello.id;
        if !first && connection.bond().is_some_and(newer) {
            // The welcome to a newer hello, which is being looked at, says it all.
            return None;
        }
        let row = {
            let inner = lock(&self.inner);
            inner.identifiers.get(&connection.identifier).cloned()?
        };
        let interval = self.interval(Some(&row), &greeting.said);
        let mut welcome = payload::Welcome {
            name: Some(row.name),
            attributes: row.attributes,
            heartbeat_seconds: Some(interval),
            deltas: true,
            nested_deltas: true,
            acked: greeting.acked.filter(|_| first),
            time: Some(now()),
            ..payload::Welcome::default()
        };
        if let Some(bond) = &greeting.bond {
            bond.own.introduce(&mut welcome, bond);
        }
        let write = |welcome: &_| {
            let failed = |e: EncodeError| {
                log::error!(
                    "{} cannot be welcomed: {e}",
                    self.name(&connection.identifier)
                );
                connection.close("not let in");
            };
            greeting.write(welcome).map_err(failed).ok()
        };
        let mut text = write(&welcome)?;
        if text.len() > SMALLEST_LIMIT {
            // Stored before there was a bound: a device that cannot read its welcome would be out of reach.
            if first {
                log::error!(
                    "{} ({}) is welcomed without its attributes: with them that has {} bytes, and a device need not take \
                     more than {SMALLEST_LIMIT}. 'poseidon set {0} --unset KEY' takes some away; they may have \
                     {MAX_ATTRIBUTE_BYTES} bytes in all",
                    welcome.name.as_deref().unwrap_or_default(),
                    fingerprint(&connection.identifier),
                    text.len()
                );
            }
            welcome.attributes.clear();
            text = write(&welcome)?;
        }
        Some(Welcome { text, interval })
    }
}

#[cfg(test)]
#[path = "welcome_tests.rs"]
mod tests;

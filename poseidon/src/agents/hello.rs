//! `hello`: who it is that came.

use super::arrival::{Arrival, Refusal};
use super::delivery;
use super::handle::{raw, read_value};
use super::provision;
use super::recorder::Recorder;
use super::session::{Phase, STATE_LIMIT, Session};
use crate::agents::Key;
use triton::message::{Message, payload};

/// Longest instance id, in characters.
const INSTANCE_LIMIT: usize = 128;
/// Longest id of a process or a journal that is kept, in characters.
const ID_LIMIT: usize = 128;
/// So often a new connection may find another one in its place that lives no more.
const MAX_PROBES: usize = 3;

impl Session<'_> {
    pub(super) async fn hello(&mut self, message: &Message) {
        let (hello, value) = match message
            .read::<payload::Hello>()
            .map_err(|e| e.to_string())
            .and_then(|hello| read_value::<payload::Hello>(message).map(|value| (hello, value)))
        {
            Ok(both) => both,
            Err(reason) => return self.complain(message, &reason).await,
        };
        let length = hello.instance.chars().count();
        let bad = |c: char| !(c.is_ascii_graphic() || c.is_alphanumeric()) || c == '/';
        if !(1..=INSTANCE_LIMIT).contains(&length) || hello.instance.contains(bad) {
            let reason =
                "hello needs an instance: 1 to 128 letters, digits or signs, without slash";
            return self.complain(message, reason).await;
        }
        let hello_json = raw(&value);
        if hello_json.get().len() > STATE_LIMIT {
            return self.complain(message, "this hello is too large").await;
        }
        let registry = &self.app.registry;
        if registry.settings(&self.connection.identifier).is_none() {
            return self.connection.close("forgotten");
        }
        if hello.probe {
            if matches!(self.phase, Phase::Waiting) {
                self.phase = Phase::Probe;
            }
            return registry.welcome_probe(self.connection, message, &hello.instance);
        }
        if let Phase::Agent { key, plain, .. } = &self.phase
            && key.instance != hello.instance
        {
            // It was taken for a plain Triton because its hello came late, or it changes its instance.
            let (key, plain) = (key.clone(), *plain);
            self.finish_records().await;
            self.leave().await;
            if plain {
                self.app.registry.remove(&key);
            }
        }
        let short = |id: &String| !id.is_empty() && id.chars().count() <= ID_LIMIT;
        let last = hello.journal.as_ref().map_or(0, |journal| journal.last);
        let arrival = Arrival {
            instance: Some(hello.instance),
            hello: Some(hello_json),
            address: self.peer.0.to_string(),
            hostname: hello.hostname,
            run: hello.run.filter(short),
            journal: hello.journal.map(|journal| journal.id).filter(short),
            message: Some(message.clone()),
        };
        if let Some(key) = self.take_place(&arrival).await {
            self.be_agent(&key, false, arrival.journal.is_some());
            if arrival.journal.is_some() {
                self.check_numbering(&key, last);
            }
            delivery::start(self.app, &key);
            provision::start(self.app, &key);
        }
    }

    /// Takes the place of its instance. Where somebody has it that lives, this one is sent away.
    async fn take_place(&mut self, arrival: &Arrival) -> Option<Key> {
        let mut dead = None;
        for _ in 0..MAX_PROBES {
            match self.app.registry.arrive(self.connection, arrival, dead) {
                Ok(key) => return Some(key),
                Err(Refusal::NotLetIn) => {
                    self.connection.close("not let in");
                    return None;
                }
                Err(Refusal::Occupied(first)) => {
                    if first.is_alive().await {
                        break;
                    }
                    dead = Some(first.id);
                }
            }
        }
        let key = Key {
            identifier: self.connection.identifier.clone(),
            instance: arrival.instance.clone().unwrap_or_default(),
        };
        self.app
            .registry
            .collide(&key, &arrival.address, &arrival.hostname);
        self.connection.close("collision");
        None
    }

    /// An agent that numbers its records anew is not heard: they look like those that are stored.
    fn check_numbering(&self, key: &Key, last: u64) {
        let acked = self.app.registry.acked(key);
        if last < acked {
            log::warn!(
                "the journal of {} ends at {last}, and {acked} is stored: it has lost its numbering, and what it \
                 numbers below that is taken for what is stored",
                self.name()
            );
        }
    }

    pub(super) async fn become_plain(&mut self) {
        let arrival = Arrival {
            instance: None,
            hello: None,
            address: self.peer.0.to_string(),
            hostname: String::new(),
            run: None,
            journal: None,
            message: None,
        };
        match self.app.registry.arrive(self.connection, &arrival, None) {
            Ok(key) => {
                self.be_agent(&key, true, false);
                // Poseidon may have been killed before it could do so. To ask would be to start them again.
                self.lose_jobs(&key, Some(self.connection.id)).await;
                delivery::start(self.app, &key);
            }
            Err(_) => self.connection.close("not let in"),
        }
    }

    fn be_agent(&mut self, key: &Key, plain: bool, journal: bool) {
        let first = matches!(self.phase, Phase::Waiting | Phase::Probe);
        self.phase = Phase::Agent {
            key: key.clone(),
            plain,
            name: self.app.registry.name(&key.identifier),
        };
        if !journal {
            self.recorder = None;
        } else if self.recorder.is_none() {
            let address = self.peer.0.to_string();
            self.recorder = Some(Recorder::start(self.app, self.connection, key, &address));
        }
        if first {
            log::info!("{} is up", self.name());
        }
    }
}

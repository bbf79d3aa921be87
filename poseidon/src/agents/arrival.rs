//! An agent comes up: its place in the registry, and what is known of others under the same instance id.

use super::connection::Connection;
use super::registry::{Agent, Registry, free_plain_name};
use super::selector::Hello;
use super::welcome::Greeting;
use super::{Key, fingerprint};
use crate::jobs::lock;
use crate::store::Instance;
use crate::time::now;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::sync::Arc;
use triton::message::Message;

/// A collision is shown until the other agent has stayed away for so long, in seconds.
const AWAY: f64 = 900.0;
/// Processes of an agent that are remembered.
const MAX_RUNS: usize = 8;
/// Longest host name that is kept, in characters.
const HOSTNAME_LIMIT: usize = 255;

/// Another living agent with the same instance id, as the API gives it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Collision {
    pub address: String,
    pub hostname: String,
    pub since: f64,
    pub last: f64,
}

impl Collision {
    pub fn is_current(&self) -> bool {
        now() - self.last < AWAY
    }
}

/// The processes of one instance: each has its own `run`, and one that ended never comes back.
#[derive(Debug, Default)]
pub(super) struct Runs {
    current: Option<String>,
    past: VecDeque<String>,
}

impl Runs {
    /// A process comes; whether it was here before another one was.
    fn come(&mut self, run: Option<&str>) -> bool {
        if self.current.as_deref() == run {
            return false;
        }
        let back = run.is_some_and(|run| self.past.iter().any(|past| past == run));
        if let Some(run) = run {
            self.past.retain(|past| past != run);
        }
        if let Some(last) = std::mem::replace(&mut self.current, run.map(str::to_owned)) {
            if self.past.len() >= MAX_RUNS {
                self.past.pop_front();
            }
            self.past.push_back(last);
        }
        back
    }
}

/// Who connects.
pub struct Arrival {
    /// Instance id; `None` for a plain Triton, which gets a name here.
    pub instance: Option<String>,
    /// `hello` as JSON.
    pub hello: Option<Box<RawValue>>,
    /// IP and port.
    pub address: String,
    /// Its host name.
    pub hostname: String,
    /// Random per process.
    pub run: Option<String>,
    /// Id of its journal.
    pub journal: Option<String>,
    /// The `hello`, which is answered when its place is taken.
    pub message: Option<Message>,
}

/// Why an agent does not come up.
pub enum Refusal {
    /// Its identifier is gone or refused, or there is no room.
    NotLetIn,
    /// There is a connection of the same instance, and nobody knows whether it lives.
    Occupied(Arc<Connection>),
}

impl Registry {
    /// An agent is up: takes its place and welcomes it, in this order and at once, so that the welcome is the first
    /// that it hears. `dead` is the number of a connection of the same instance that does not answer.
    pub fn arrive(
        &self,
        connection: &Arc<Connection>,
        arrival: &Arrival,
        dead: Option<u64>,
    ) -> Result<Key, Refusal> {
        let said = Arc::new(Hello::read(arrival.hello.as_deref()));
        let mut inner = lock(&self.inner);
        if !inner.connections.contains_key(&connection.id)
            || inner
                .identifiers
                .get(&connection.identifier)
                .is_none_or(|row| row.refused)
        {
            return Err(Refusal::NotLetIn);
        }
        let plain = arrival.instance.is_none();
        let instance = arrival
            .instance
            .clone()
            .unwrap_or_else(|| free_plain_name(&inner, &connection.identifier));
        let key = Key {
            identifier: connection.identifier.clone(),
            instance,
        };
        if !inner.agents.contains_key(&key) && !self.make_room(&mut inner, &key.identifier) {
            log::warn!("{} has too many instances", fingerprint(&key.identifier));
            return Err(Refusal::NotLetIn);
        }
        let time = now();
        let agent = inner.agents.entry(key.clone()).or_insert_with(|| {
            Agent::new(Instance {
                identifier: key.identifier.clone(),
                instance: key.instance.clone(),
                plain,
                address: String::new(),
                since: time,
                last_seen: time,
                hello: None,
                health: None,
                health_at: None,
                acked: 0,
            })
        });
        // A process has one connection: it has given up an older one, whatever that looks like from here.
        let same_process = arrival.run.is_some() && arrival.run == agent.runs.current;
        match &agent.connection {
            Some(old) if old.id != connection.id => {
                if !(same_process || old.has_ended() || dead == Some(old.id)) {
                    return Err(Refusal::Occupied(old.clone()));
                }
                old.close("replaced");
            }
            Some(_) => {}
            None => agent.row.since = time,
        }
        let seen = agent.last_seen();
        let back = agent.runs.come(arrival.run.as_deref());
        if back && time - seen < AWAY {
            let (address, hostname) = (agent.row.address.clone(), hostname_of(&agent.row));
            note(agent, &key, &address, &hostname);
        }
        agent.connection = Some(connection.clone());
        agent.journal.clone_from(&arrival.journal);
        agent.row.plain = plain;
        agent.row.address.clone_from(&arrival.address);
        agent.row.hello.clone_from(&arrival.hello);
        agent.said = said.clone();
        agent.row.last_seen = time;
        agent.urgent = true;
        let acked = agent.row.acked;
        let interval = self.interval(inner.identifiers.get(&key.identifier), &said);
        connection.set_interval(interval);
        if let Some(message) = &arrival.message {
            let acked = arrival.journal.is_some().then_some(acked);
            connection.greet(Greeting::new(connection, message, said, acked));
        }
        self.publish(&key);
        drop(inner);
        self.changed.notify_one();
        Ok(key)
    }

    /// A second living agent came under the same instance id and was sent away.
    pub fn collide(&self, key: &Key, address: &str, hostname: &str) {
        let mut inner = lock(&self.inner);
        if let Some(agent) = inner.agents.get_mut(key) {
            note(agent, key, address, hostname);
            self.publish(key);
        }
    }
}

fn note(agent: &mut Agent, key: &Key, address: &str, hostname: &str) {
    let time = now();
    let before = agent.collision.take().filter(Collision::is_current);
    if before.is_none() {
        log::warn!(
            "collision: two agents live with the instance id {} of {}, one at {address} ({}): remove the file \
             `instance` from the state folder of one of them",
            key.instance,
            fingerprint(&key.identifier),
            hostname.escape_debug()
        );
    }
    agent.collision = Some(Collision {
        address: address.to_owned(),
        hostname: hostname.chars().take(HOSTNAME_LIMIT).collect(),
        since: before.map_or(time, |before| before.since),
        last: time,
    });
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Host {
    hostname: String,
}

fn hostname_of(row: &Instance) -> String {
    row.hello
        .as_deref()
        .and_then(|hello| serde_json::from_str::<Host>(hello.get()).ok())
        .unwrap_or_default()
        .hostname
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_does_not_come_back() {
        let mut runs = Runs::default();
        assert!(!runs.come(Some("a")));
        assert!(!runs.come(Some("a")));
        assert!(!runs.come(Some("b")));
        assert!(runs.come(Some("a")));
        assert!(runs.come(Some("b")));
        assert!(!runs.come(None));
        for n in 0..100 {
            assert!(!runs.come(Some(&n.to_string())));
        }
        assert!(runs.past.len() <= MAX_RUNS);
    }
}

//! Who is known and who is there. All of it is in memory; what must survive is in the store as well.

use super::arrival::{Collision, Runs};
use super::connection::{Connection, Outbox};
use super::scope::Scope;
use super::selector::{Facts, Hello, Selector};
use super::trust::{self, Book};
use super::{AgentView, Key, PendingView, fingerprint};
use crate::events::{Change, Events};
use crate::jobs::lock;
use crate::store::{Identifier, Instance, Snapshot};
use crate::time::now;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::Notify;

/// Locks among which the changes of keys are spread, by the first digits of the identifier's hash.
const TURNS: usize = 256;
/// Identifiers that knock and are not registered; the one that was silent longest makes room.
pub const MAX_PENDING: usize = 1000;
/// Instances of one identifier. A cluster that makes new ones every day must not fill the store: the one that is
/// down and was silent longest makes room.
pub(super) const MAX_INSTANCES: usize = 10_000;

pub(super) struct Agent {
    pub row: Instance,
    /// What selectors go by of its `hello`: each look at it would read that anew.
    pub said: Arc<Hello>,
    pub connection: Option<Arc<Connection>>,
    /// When its last connection ended; before the first one since the server's start, that start.
    left: Instant,
    /// Id of its journal, of which its `hello` told.
    pub journal: Option<String>,
    /// Its processes, as far as they said who they are.
    pub runs: Runs,
    /// Another agent that lives under the same instance id.
    pub collision: Option<Collision>,
    /// Row of its newest record that came since the server's start.
    history: u64,
    /// The row differs from the stored one…
    dirty: bool,
    /// …in more than what the next heartbeat changes again.
    pub urgent: bool,
}

impl Agent {
    pub fn new(row: Instance) -> Self {
        Self {
            said: Arc::new(Hello::read(row.hello.as_deref())),
            row,
            connection: None,
            left: Instant::now(),
            journal: None,
            runs: Runs::default(),
            collision: None,
            history: 0,
            dirty: false,
            urgent: false,
        }
    }

    pub fn last_seen(&self) -> f64 {
        let heard = self.connection.as_ref().map_or(0.0, |c| c.heard());
        self.row.last_seen.max(heard)
    }
}

#[derive(Default)]
pub(super) struct Inner {
    pub identifiers: HashMap<String, Identifier>,
    pub agents: BTreeMap<Key, Agent>,
    pub pending: HashMap<String, PendingView>,
    pub book: Book,
    pub connections: HashMap<u64, Arc<Connection>>,
    next: u64,
    /// Made room; still in the store.
    evicted: Vec<Key>,
}

/// An instance that is held to a key makes room when it was silent for so long, in seconds: else who has the identifier
/// could push it out and take its name.
const SILENT: f64 = 7.0 * 86_400.0;

/// An agent that a name stands for.
#[derive(Clone)]
pub struct Target {
    /// Which.
    pub key: Key,
    /// Name of its identifier.
    pub name: String,
    /// Its connection, if it is up.
    pub connection: Option<Arc<Connection>>,
    /// Id of its journal.
    pub journal: Option<String>,
}

/// Whether an agent is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is connected.
    Up,
    /// It is not, since then; at most since the server's start.
    Down(Instant),
    /// It was forgotten, or never there.
    Unknown,
}

/// Why a name means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameError {
    /// No such name or instance.
    Unknown,
    /// The beginning of an instance id fits several.
    Ambiguous,
}

/// The registry.
pub struct Registry {
    pub(super) inner: Mutex<Inner>,
    pub(super) events: Events,
    /// Something should be stored soon.
    pub changed: Notify,
    turns: Vec<tokio::sync::Mutex<()>>,
    /// Between heartbeats, unless an operator or the device names others.
    heartbeat_seconds: u32,
}

impl Registry {
    /// Starts with what is stored; all agents are down.
    pub fn new(snapshot: Snapshot, events: Events, heartbeat_seconds: u32) -> Self {
        let mut inner = Inner {
            book: trust::book(snapshot.device_keys),
            ..Inner::default()
        };
        for row in snapshot.identifiers {
            inner.identifiers.insert(row.hash.clone(), row);
        }
        for row in snapshot.instances {
            let key = Key {
                identifier: row.identifier.clone(),
                instance: row.instance.clone(),
            };
            inner.agents.insert(key, Agent::new(row));
        }
        Self {
            inner: Mutex::new(inner),
            events,
            changed: Notify::new(),
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect(),
            heartbeat_seconds,
        }
    }

    /// The turn to change what is stored of an identifier and its keys. Both are read, stored and only then changed in
    /// memory: who comes meanwhile would write back what was.
    pub(super) async fn turn(&self, identifier: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let digits = identifier.get(..2).unwrap_or_default();
        let place = usize::from_str_radix(digits, 16).unwrap_or(0) % TURNS;
        self.turns[place].lock().await
    }

    /// Seconds between the heartbeats of an agent: an operator's word comes first, then its own.
    pub(super) fn interval(&self, identifier: Option<&Identifier>, said: &Hello) -> u32 {
        let set = identifier.and_then(|row| row.heartbeat);
        set.or_else(|| said.heartbeat())
            .unwrap_or(self.heartbeat_seconds)
    }

    /// A new connection of an admitted identifier; `None` where there are `limit` already.
    pub fn open(&self, identifier: &str, limit: usize) -> Option<(Arc<Connection>, Outbox)> {
        let mut inner = lock(&self.inner);
        if inner.connections.len() >= limit {
            return None;
        }
        inner.next += 1;
        let (connection, outbox) = Connection::new(inner.next, identifier, self.heartbeat_seconds);
        let connection = Arc::new(connection);
        inner.connections.insert(connection.id, connection.clone());
        Some((connection, outbox))
    }

    /// A connection is gone.
    pub fn close(&self, connection: &Connection) {
        lock(&self.inner).connections.remove(&connection.id);
    }

    /// Ends all connections, or those of one identifier.
    pub fn close_all(&self, identifier: Option<&str>, reason: &'static str) {
        for connection in lock(&self.inner).connections.values() {
            if identifier.is_none_or(|hash| connection.identifier == hash) {
                connection.close(reason);
            }
        }
    }

    /// Number of live connections.
    pub fn connections(&self) -> usize {
        lock(&self.inner).connections.len()
    }

    /// Name and attributes of an identifier.
    pub fn settings(&self, identifier: &str) -> Option<(String, BTreeMap<String, String>)> {
        let inner = lock(&self.inner);
        let row = inner.identifiers.get(identifier)?;
        Some((row.name.clone(), row.attributes.clone()))
    }

    /// Whether an agent with this identifier was last seen at this address.
    pub fn known_from(&self, identifier: &str, ip: IpAddr) -> bool {
        let ip = ip.to_string();
        let inner = lock(&self.inner);
        agents_of(&inner, identifier).any(|(_, agent)| {
            let host = agent
                .row
                .address
                .rsplit_once(':')
                .map_or("", |(host, _)| host);
            host.trim_start_matches('[').trim_end_matches(']') == ip
        })
    }

    pub(super) fn make_room(&self, inner: &mut Inner, identifier: &str) -> bool {
        if agents_of(inner, identifier).count() < MAX_INSTANCES {
            return true;
        }
        let since = now() - SILENT;
        let oldest = agents_of(inner, identifier)
            .filter(|(key, agent)| {
                agent.connection.is_none() && (agent.row.last_seen < since || !inner.holds(key))
            })
            .min_by(|a, b| a.1.row.last_seen.total_cmp(&b.1.row.last_seen))
            .map(|(key, _)| key.clone());
        let Some(oldest) = oldest else {
            return false;
        };
        inner.agents.remove(&oldest);
        inner.forget_key(&oldest);
        self.publish_removed(inner, &oldest);
        inner.evicted.push(oldest);
        true
    }

    /// Agents that made room for others and are still in the store.
    pub fn take_evicted(&self) -> Vec<Key> {
        std::mem::take(&mut lock(&self.inner).evicted)
    }

    /// An agent is down, if this is still its connection.
    pub fn leave(&self, key: &Key, connection: &Connection) {
        let mut inner = lock(&self.inner);
        let Some(agent) = inner.agents.get_mut(key) else {
            return;
        };
        if agent.connection.as_ref().map(|c| c.id) != Some(connection.id) {
            return;
        }
        agent.row.last_seen = agent.last_seen();
        agent.row.since = now();
        agent.connection = None;
        agent.left = Instant::now();
        agent.urgent = true;
        self.publish(key);
        drop(inner);
        self.changed.notify_one();
    }

    /// The last whole heartbeat of an agent.
    pub fn health(&self, key: &Key) -> Option<Box<RawValue>> {
        lock(&self.inner).agents.get(key)?.row.health.clone()
    }

    /// Keeps a whole heartbeat. It is stored with the next round, not at once.
    pub fn set_health(&self, key: &Key, health: Box<RawValue>) {
        let mut inner = lock(&self.inner);
        if let Some(agent) = inner.agents.get_mut(key) {
            agent.row.last_seen = agent.last_seen();
            agent.row.health = Some(health);
            agent.row.health_at = Some(now());
            agent.dirty = true;
            self.publish(key);
        }
    }

    /// Takes an agent out, of which nothing stays; not while it is up.
    pub fn remove(&self, key: &Key) -> bool {
        let mut inner = lock(&self.inner);
        if inner.agents.get(key).is_none_or(|a| a.connection.is_some()) {
            return false;
        }
        inner.agents.remove(key);
        inner.forget_key(key);
        self.publish_removed(&inner, key);
        true
    }

    /// The hash of the registered identifier of this name, and its instances in their order.
    pub(super) fn named(&self, name: &str) -> Option<(String, Vec<Target>)> {
        let inner = lock(&self.inner);
        let mut rows = inner.identifiers.values();
        let row = rows.find(|row| row.name == name && !row.refused)?;
        let all = agents_of(&inner, &row.hash).map(|(key, agent)| Target {
            key: key.clone(),
            name: row.name.clone(),
            connection: agent.connection.clone(),
            journal: agent.journal.clone(),
        });
        Some((row.hash.clone(), all.collect()))
    }

    /// The agents of a scope that one of the selectors means, all of them where there is none; by name and instance.
    pub fn select(&self, scope: &Scope, on: &[Selector]) -> Vec<Target> {
        // What is known of each is copied first: to try all selectors under the lock would hold up all.
        let mut known: Vec<_> = {
            let inner = lock(&self.inner);
            let agents = inner.agents.iter().filter_map(|(key, agent)| {
                let row = inner.identifiers.get(&key.identifier)?;
                let target = Target {
                    key: key.clone(),
                    name: row.name.clone(),
                    connection: agent.connection.clone(),
                    journal: agent.journal.clone(),
                };
                let facts = (row.attributes.clone(), agent.said.clone());
                (!row.refused).then_some((target, facts))
            });
            agents.collect()
        };
        known.retain(|(target, (attributes, hello))| {
            let facts = Facts {
                name: &target.name,
                instance: &target.key.instance,
                up: target.connection.is_some(),
                attributes,
                hello,
            };
            scope.covers(&facts)
                && (on.is_empty() || on.iter().any(|selector| selector.selects(&facts)))
        });
        let mut found: Vec<Target> = known.into_iter().map(|(target, _)| target).collect();
        found.sort_by(|a, b| (&a.name, &a.key.instance).cmp(&(&b.name, &b.key.instance)));
        found
    }

    /// The live connection of an agent, and the id of its journal.
    pub fn connection(&self, key: &Key) -> Option<(Arc<Connection>, Option<String>)> {
        let inner = lock(&self.inner);
        let agent = inner.agents.get(key)?;
        Some((agent.connection.clone()?, agent.journal.clone()))
    }

    /// Whether it is there, and since when not.
    pub fn presence(&self, key: &Key) -> Presence {
        match lock(&self.inner).agents.get(key) {
            None => Presence::Unknown,
            Some(agent) if agent.connection.is_some() => Presence::Up,
            Some(agent) => Presence::Down(agent.left),
        }
    }

    /// Whether it was ever seen, and not forgotten.
    pub fn knows(&self, key: &Key) -> bool {
        lock(&self.inner).agents.contains_key(key)
    }

    /// `hello` of an agent, as it came.
    pub fn hello(&self, key: &Key) -> Option<Box<RawValue>> {
        lock(&self.inner).agents.get(key)?.row.hello.clone()
    }

    /// The agents that are up, of one identifier or of all.
    pub fn up(&self, identifier: Option<&str>) -> Vec<Key> {
        let inner = lock(&self.inner);
        let up = inner.agents.iter().filter(|(key, agent)| {
            agent.connection.is_some() && identifier.is_none_or(|hash| key.identifier == hash)
        });
        up.map(|(key, _)| key.clone()).collect()
    }

    /// Records of an agent are stored, up to the sequence `acked`; `row` is that of the newest if some are new.
    pub fn stored(&self, key: &Key, acked: u64, row: Option<u64>) {
        let mut inner = lock(&self.inner);
        let Some(agent) = inner.agents.get_mut(key) else {
            return;
        };
        agent.row.acked = agent.row.acked.max(acked);
        if let Some(row) = row {
            agent.history = agent.history.max(row);
            self.events.publish(|| Change::History(key.clone()));
        }
    }

    /// The last sequence of an agent's journal that is stored.
    pub fn acked(&self, key: &Key) -> u64 {
        let inner = lock(&self.inner);
        inner.agents.get(key).map_or(0, |agent| agent.row.acked)
    }

    /// The name of an agent and the row of its newest record.
    pub fn history(&self, key: &Key) -> Option<(String, u64)> {
        let inner = lock(&self.inner);
        let name = inner.identifiers.get(&key.identifier)?.name.clone();
        Some((name, inner.agents.get(key)?.history))
    }

    /// Name of an identifier, or its fingerprint where it is gone.
    pub fn name(&self, identifier: &str) -> String {
        let inner = lock(&self.inner);
        let row = inner.identifiers.get(identifier);
        row.map_or_else(
            || fingerprint(identifier).to_owned(),
            |row| row.name.clone(),
        )
    }

    /// JSON of all agents by name, or of some.
    pub fn agents_json(&self, only: Option<&[Key]>) -> Vec<Box<RawValue>> {
        let inner = lock(&self.inner);
        let mut views: Vec<_> = match only {
            Some(keys) => keys
                .iter()
                .filter_map(|key| self.view(&inner, key))
                .collect(),
            None => inner
                .agents
                .keys()
                .filter_map(|key| self.view(&inner, key))
                .collect(),
        };
        views.sort_by_key(|view| (view.name, view.instance));
        views
            .iter()
            .filter_map(|view| serde_json::value::to_raw_value(view).ok())
            .collect()
    }

    /// Rows that have changed since they were last taken; those with no more than a heartbeat only if `all`.
    pub fn take_changed(&self, all: bool) -> Vec<Instance> {
        let mut inner = lock(&self.inner);
        let changed = inner
            .agents
            .values_mut()
            .filter(|agent| agent.urgent || (all && agent.dirty));
        changed
            .map(|agent| {
                (agent.dirty, agent.urgent) = (false, false);
                agent.row.last_seen = agent.last_seen();
                agent.row.clone()
            })
            .collect()
    }

    fn view<'a>(&self, inner: &'a Inner, key: &'a Key) -> Option<AgentView<'a>> {
        let agent = inner.agents.get(key)?;
        let identifier = inner.identifiers.get(&key.identifier)?;
        Some(AgentView {
            name: &identifier.name,
            instance: &agent.row.instance,
            identifier: fingerprint(&identifier.hash),
            state: if agent.connection.is_some() {
                "up"
            } else {
                "down"
            },
            since: agent.row.since,
            last_seen: agent.last_seen(),
            address: &agent.row.address,
            plain: agent.row.plain,
            hello: agent.row.hello.as_deref(),
            health: agent.row.health.as_deref(),
            health_at: agent.row.health_at,
            heartbeat_seconds: self.interval(Some(identifier), &agent.said),
            attributes: &identifier.attributes,
            collision: agent.collision.as_ref().filter(|c| c.is_current()),
            trust: trust::of_agent(inner, &key.identifier, &key.instance),
        })
    }

    /// Is called while the lock is held, so that watchers hear of changes in their order.
    pub(super) fn publish(&self, key: &Key) {
        self.events.publish(|| Change::Agent(key.clone()));
    }

    pub(super) fn publish_removed(&self, inner: &Inner, key: &Key) {
        self.events.publish(|| Change::Removed {
            key: key.clone(),
            name: inner
                .identifiers
                .get(&key.identifier)
                .map(|row| row.name.clone()),
        });
    }
}

pub(super) fn agents_of<'a>(
    inner: &'a Inner,
    identifier: &'a str,
) -> impl Iterator<Item = (&'a Key, &'a Agent)> {
    let from = Key {
        identifier: identifier.to_owned(),
        instance: String::new(),
    };
    inner
        .agents
        .range(from..)
        .take_while(move |(key, _)| key.identifier == identifier)
}

/// `plain`, or `plain-2` and so on while others of the same identifier are connected.
pub(super) fn free_plain_name(inner: &Inner, identifier: &str) -> String {
    let mut number = 1_u64;
    loop {
        let instance = if number == 1 {
            "plain".to_owned()
        } else {
            format!("plain-{number}")
        };
        let key = Key {
            identifier: identifier.to_owned(),
            instance,
        };
        if inner
            .agents
            .get(&key)
            .is_none_or(|a| a.connection.is_none())
        {
            return key.instance;
        }
        number += 1;
    }
}

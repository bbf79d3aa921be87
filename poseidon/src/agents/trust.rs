//! Keys of devices: which of them a `hello` may come with. All of it is in memory, and stored before it counts.

mod pins;

use super::Key;
use super::registry::{Inner, MAX_INSTANCES, Registry, agents_of};
use crate::jobs::lock;
use crate::store::trust::DeviceKey;
use crate::store::{Db, StoreError};
use crate::time::now;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use triton::message::payload::Hello;
use triton::message::sign::{PublicKey, follow};

/// Instances of one identifier whose key is remembered: as many as have a place in the registry, with which it goes.
const MAX_SHOWN: usize = MAX_INSTANCES;
/// Refusals of one identifier that are shown.
const MAX_REFUSED: usize = 8;
/// Characters of a reason or an instance that are kept.
const TEXT: usize = 300;

/// What is known of the keys of one identifier.
#[derive(Default)]
pub(super) struct Keys {
    /// Where there are any, no other gets in.
    pins: Vec<(PublicKey, f64)>,
    /// By instance, the key that it is held to.
    shown: BTreeMap<String, (PublicKey, f64)>,
    /// Newest last.
    refused: VecDeque<Refused>,
}

/// By the hash of the identifier.
pub(super) type Book = HashMap<String, Keys>;

/// A device that was not believed, as the API gives it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refused {
    pub time: f64,
    pub address: String,
    pub instance: String,
    /// The key that it showed and signed with, if any.
    pub key_id: Option<String>,
    pub reason: String,
    #[serde(skip)]
    key: Option<PublicKey>,
}

/// A key, as the API gives it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyView {
    pub key_id: String,
    pub public_key: String,
    pub since: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

/// The keys of one identifier, as the API gives them.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct KeysView {
    pub name: String,
    pub pinned: Vec<KeyView>,
    pub shown: Vec<KeyView>,
    pub refused: Vec<Refused>,
}

fn view(key: &PublicKey, since: f64, instance: Option<&String>) -> KeyView {
    KeyView {
        key_id: key.id().to_string(),
        public_key: key.to_string(),
        since,
        instance: instance.cloned(),
    }
}

/// What a `hello` comes to.
pub(super) enum Judgement {
    /// It may come in; whether its key is pinned.
    In(bool),
    /// So it may, once this is stored.
    Store(Vec<DeviceKey>, bool),
    /// It may not, for this reason.
    Out(String),
}

impl Keys {
    fn rows(&self, identifier: &str) -> Vec<DeviceKey> {
        let row = |instance: &str, (key, since): &(PublicKey, f64)| DeviceKey {
            identifier: identifier.to_owned(),
            instance: instance.to_owned(),
            key: key.to_string(),
            since: *since,
        };
        let pins = self.pins.iter().map(|pin| row("", pin));
        let shown = self.shown.iter().map(|(instance, key)| row(instance, key));
        pins.chain(shown).collect()
    }

    /// Where `shown` stands, and whether a key that is known leads to it.
    fn judge(&mut self, identifier: &str, hello: &Hello, shown: Option<&PublicKey>) -> Judgement {
        let instance = &hello.instance;
        let row = |instance: &str, key: &PublicKey, since| DeviceKey {
            identifier: identifier.to_owned(),
            instance: instance.to_owned(),
            key: key.to_string(),
            since,
        };
        let Some(key) = shown else {
            return if !self.pins.is_empty() {
                Judgement::Out(
                    "it shows no key, and this identifier is for pinned keys only".into(),
                )
            } else if let Some((known, _)) = self.shown.get(instance) {
                let id = known.id();
                Judgement::Out(format!(
                    "it shows no key, and this instance has shown {id} before"
                ))
            } else {
                Judgement::In(false)
            };
        };
        if !self.pins.is_empty() {
            if self.pins.iter().any(|(pin, _)| pin == key) {
                return Judgement::In(true);
            }
            let led = |(pin, _): &(PublicKey, f64)| follow(&hello.keys, pin, key).is_some();
            let Some(place) = self.pins.iter().position(led) else {
                return Judgement::Out(format!("its key {} is not pinned", key.id()));
            };
            let mut pins = self.pins.clone();
            pins[place] = (*key, now());
            let rows = pins.iter().map(|(key, since)| row("", key, *since));
            return Judgement::Store(rows.collect(), true);
        }
        match self.shown.get(instance) {
            Some((known, _)) if known == key => Judgement::In(false),
            Some((known, _)) if follow(&hello.keys, known, key).is_none() => {
                Judgement::Out(format!(
                    "its key is {}, and this instance has shown {} before",
                    key.id(),
                    known.id()
                ))
            }
            _ => Judgement::Store(vec![row(instance, key, now())], false),
        }
    }

    /// Whoever has shown a key is not pushed out by those who come later.
    fn has_room(&self, instance: &str) -> bool {
        self.shown.len() < MAX_SHOWN || self.shown.contains_key(instance)
    }

    /// Takes rows that are stored.
    fn take(&mut self, rows: &[DeviceKey]) {
        if rows.iter().any(|row| row.instance.is_empty()) {
            self.pins.clear();
        }
        for row in rows {
            let Ok(key) = row.key.parse() else {
                log::error!("a stored key of {} is damaged", row.identifier);
                continue;
            };
            if row.instance.is_empty() {
                self.pins.push((key, row.since));
                continue;
            }
            if !self.has_room(&row.instance) {
                log::error!(
                    "more keys of {} are stored than it may have",
                    row.identifier
                );
                continue;
            }
            self.shown.insert(row.instance.clone(), (key, row.since));
        }
    }
}

/// The keys that are stored.
pub(super) fn book(rows: Vec<DeviceKey>) -> Book {
    let mut of: HashMap<String, Vec<DeviceKey>> = HashMap::new();
    for row in rows {
        of.entry(row.identifier.clone()).or_default().push(row);
    }
    let keys = |(identifier, rows): (String, Vec<DeviceKey>)| {
        let mut keys = Keys::default();
        keys.take(&rows);
        (identifier, keys)
    };
    of.into_iter().map(keys).collect()
}

impl Inner {
    /// An instance is gone, and the key that it was held to with it.
    pub(super) fn forget_key(&mut self, key: &Key) {
        if let Some(keys) = self.book.get_mut(&key.identifier) {
            keys.shown.remove(&key.instance);
        }
    }

    /// Whether an instance is held to a key.
    pub(super) fn holds(&self, key: &Key) -> bool {
        let keys = self.book.get(&key.identifier);
        keys.is_some_and(|keys| keys.shown.contains_key(&key.instance))
    }

    /// Pins what is stored.
    pub(super) fn pin(&mut self, identifier: &str, rows: &[DeviceKey]) {
        let keys = self.book.entry(identifier.to_owned()).or_default();
        keys.take(rows);
    }
}

/// Why a `hello` does not come in.
#[derive(Debug)]
pub(super) enum NotAdmitted {
    /// Its key is not believed; why.
    Distrusted(String),
    /// Its key is new and could not be stored, which says nothing of the agent.
    Unstored(StoreError),
}

impl Registry {
    /// Whether a `hello` may come in by its key, which it has proved to have. `Ok` says whether that is pinned. The first
    /// key of an instance is kept once that has its `place` in the registry: one that has none takes no room here.
    pub(super) async fn admit_key(
        &self,
        db: &Db,
        identifier: &str,
        hello: &Hello,
        shown: Option<&PublicKey>,
        place: bool,
    ) -> Result<bool, NotAdmitted> {
        let judge = || {
            let mut inner = lock(&self.inner);
            let keys = inner.book.entry(identifier.to_owned()).or_default();
            keys.judge(identifier, hello, shown)
        };
        match judge() {
            Judgement::In(pinned) => return Ok(pinned),
            Judgement::Out(reason) => return Err(NotAdmitted::Distrusted(reason)),
            // A trial changes nothing.
            Judgement::Store(_, pinned) if hello.probe || !(pinned || place) => return Ok(pinned),
            Judgement::Store(..) => {}
        }
        let _turn = self.turn(identifier).await;
        match judge() {
            Judgement::In(pinned) => Ok(pinned),
            Judgement::Out(reason) => Err(NotAdmitted::Distrusted(reason)),
            Judgement::Store(_, false) if !self.has_room(identifier, &hello.instance) => {
                let reason = format!("{MAX_SHOWN} instances of this identifier have keys already");
                Err(NotAdmitted::Distrusted(reason))
            }
            Judgement::Store(rows, pinned) => {
                let (hash, stored) = (identifier.to_owned(), rows.clone());
                let instance = if pinned { "" } else { &hello.instance }.to_owned();
                db.call(move |store| store.set_device_keys(&hash, Some(&instance), &stored))
                    .await
                    .map_err(NotAdmitted::Unstored)?;
                let mut inner = lock(&self.inner);
                let keys = inner.book.entry(identifier.to_owned()).or_default();
                keys.take(&rows);
                Ok(pinned)
            }
        }
    }

    fn has_room(&self, identifier: &str, instance: &str) -> bool {
        let inner = lock(&self.inner);
        let keys = inner.book.get(identifier);
        keys.is_none_or(|keys| keys.has_room(instance))
    }

    /// Whether an identifier is for pinned keys only.
    pub(super) fn is_strict(&self, identifier: &str) -> bool {
        let inner = lock(&self.inner);
        let keys = inner.book.get(identifier);
        keys.is_some_and(|keys| !keys.pins.is_empty())
    }

    /// Notes who was not believed.
    pub(super) fn refuse_key(
        &self,
        identifier: &str,
        address: &str,
        instance: &str,
        key: Option<PublicKey>,
        reason: &str,
    ) {
        let short = |text: &str| text.chars().take(TEXT).collect::<String>();
        let refused = Refused {
            time: now(),
            address: address.to_owned(),
            instance: short(instance),
            key_id: key.map(|key| key.id().to_string()),
            reason: short(reason),
            key,
        };
        let mut inner = lock(&self.inner);
        let keys = inner.book.entry(identifier.to_owned()).or_default();
        keys.refused
            .retain(|old| (&old.key, &old.instance) != (&refused.key, &refused.instance));
        if keys.refused.len() >= MAX_REFUSED {
            keys.refused.pop_front();
        }
        keys.refused.push_back(refused);
        self.publish_identifier(&inner, identifier);
    }

    fn publish_identifier(&self, inner: &Inner, identifier: &str) {
        for (key, _) in agents_of(inner, identifier) {
            self.publish(key);
        }
    }

    /// The keys of an identifier.
    pub(crate) fn keys_of(&self, identifier: &str) -> KeysView {
        let name = self.name(identifier);
        let inner = lock(&self.inner);
        let Some(keys) = inner.book.get(identifier) else {
            return KeysView {
                name,
                pinned: Vec::new(),
                shown: Vec::new(),
                refused: Vec::new(),
            };
        };
        let pins = keys.pins.iter().map(|(key, since)| view(key, *since, None));
        let shown = keys.shown.iter();
        let shown = shown.map(|(instance, (key, since))| view(key, *since, Some(instance)));
        KeysView {
            name,
            pinned: pins.collect(),
            shown: shown.collect(),
            refused: keys.refused.iter().rev().cloned().collect(),
        }
    }

    /// Those of all identifiers that have any, by name.
    pub(crate) fn all_keys(&self) -> Vec<KeysView> {
        let hashes: Vec<String> = {
            let inner = lock(&self.inner);
            let known = inner.book.keys();
            let known = known.filter(|hash| inner.identifiers.contains_key(*hash));
            known.cloned().collect()
        };
        let mut all: Vec<KeysView> = hashes.iter().map(|hash| self.keys_of(hash)).collect();
        all.retain(|keys| {
            !(keys.pinned.is_empty() && keys.shown.is_empty() && keys.refused.is_empty())
        });
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// What is shown of an agent's keys with the agent.
pub(super) fn of_agent<'a>(inner: &'a Inner, identifier: &str, instance: &str) -> TrustView<'a> {
    let Some(keys) = inner.book.get(identifier) else {
        return TrustView::default();
    };
    let own = keys.refused.iter().rev().find(|r| r.instance == instance);
    TrustView {
        pinned: !keys.pins.is_empty(),
        untrusted: own.or_else(|| keys.refused.back()),
    }
}

/// The same as the API gives it.
#[derive(Default, Serialize)]
pub(crate) struct TrustView<'a> {
    /// Only pinned keys get in.
    pub pinned: bool,
    /// Who came under this identifier and was not believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untrusted: Option<&'a Refused>,
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;

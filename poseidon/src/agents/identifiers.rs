//! Identifiers: who is let in, who waits for it, who stays out.

use super::registry::{Registry, agents_of};
use super::settings::{Settings, check_secret, differ};
use super::{FINGERPRINT, IdentifierView, Key, PendingView, fingerprint, hash};
use crate::agents::registry::MAX_PENDING;
use crate::events::Change;
use crate::jobs::lock;
use crate::store::trust::DeviceKey;
use crate::store::{Db, StoreError};
use crate::time::now;
use triton::identity::check_identifier;
use triton::message::sign::PublicKey;

/// Longest name of an agent's program that is kept, in characters.
const AGENT_LIMIT: usize = 100;
/// Keys that are kept of one that waits.
const MAX_KEYS: usize = 4;
/// Fewest digits that stand for an identifier.
pub(super) const ID_MIN: usize = 4;

/// Whether an identifier may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is registered.
    Registered,
    /// An operator has refused it.
    Refused,
    /// Nobody knows it.
    Unknown,
}

/// Why something about an identifier cannot be done.
#[derive(Debug)]
pub enum IdentifierError {
    /// No such identifier.
    NotFound,
    /// The beginning of the fingerprint fits several.
    Ambiguous,
    /// The name or another value is not allowed.
    Invalid(String),
    /// What was given as an identifier is shown to everybody.
    Public(String),
    /// It is neither registered nor refused yet.
    Waits,
    /// It is the last pinned key.
    LastKey,
    /// The store did not take it.
    Store(StoreError),
}

impl From<StoreError> for IdentifierError {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

/// Which key an approval pins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pin {
    /// None.
    pub none: bool,
    /// The one with this id, or this whole key. Else the only one that was shown.
    pub id: Option<String>,
}

impl Pin {
    /// `shown` is what was shown since it was refused, or since the start; `None` where nobody has come.
    fn choose(&self, shown: Option<&[PublicKey]>) -> Result<Option<PublicKey>> {
        if self.none {
            return Ok(None);
        }
        if let Some(Ok(key)) = self.id.as_ref().map(|id| id.parse()) {
            return Ok(Some(key));
        }
        let shown = match (shown, &self.id) {
            (Some(shown), _) => shown,
            (None, Some(_)) => &[],
            (None, None) => {
                let text = "no device has come with this identifier since it was refused, or since Poseidon's start, so that \
                            its key is not known: wait until it tries again, give the key that 'triton trust show' prints \
                            there as --key, or approve it without one by --no-pin";
                return Err(IdentifierError::Invalid(text.to_owned()));
            }
        };
        let ids = || {
            let ids: Vec<String> = shown.iter().map(|key| key.id().to_string()).collect();
            ids.join(", ")
        };
        match (&self.id, shown) {
            (Some(id), _) => {
                let named = shown.iter().find(|key| key.id().to_string() == *id);
                named.copied().map(Some).ok_or_else(|| {
                    IdentifierError::Invalid(format!(
                        "no device has shown the key {id} with this identifier; shown: {}",
                        if shown.is_empty() {
                            "none".to_owned()
                        } else {
                            ids()
                        }
                    ))
                })
            }
            (None, []) => Ok(None),
            (None, [key]) => Ok(Some(*key)),
            (None, _) => Err(IdentifierError::Invalid(format!(
                "devices with several keys have come with this identifier ({}): give the one that 'triton trust show' \
                 prints at the device, as --key",
                ids()
            ))),
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, IdentifierError>;

impl Registry {
    /// Whether the identifier with this hash may connect.
    pub fn admission(&self, hash: &str) -> Admission {
        match lock(&self.inner).identifiers.get(hash) {
            Some(row) if row.refused => Admission::Refused,
            Some(_) => Admission::Registered,
            None => Admission::Unknown,
        }
    }

    /// The hash of the identifier that is registered under this name.
    pub fn identifier(&self, name: &str) -> Option<String> {
        let inner = lock(&self.inner);
        let mut rows = inner.identifiers.values();
        let row = rows.find(|row| row.name == name && !row.refused)?;
        Some(row.hash.clone())
    }

    /// Notes an identifier that nobody knows; of one that is refused only the keys count, should it be let in.
    pub fn knock(&self, hash: &str, address: &str, agent: &str, key: Option<PublicKey>) {
        let mut inner = lock(&self.inner);
        // Somebody may have let it in since it was looked up.
        if inner.identifiers.get(hash).is_some_and(|row| !row.refused) {
            return;
        }
        if inner.pending.len() >= MAX_PENDING && !inner.pending.contains_key(hash) {
            let oldest = inner
                .pending
                .iter()
                .min_by(|a, b| a.1.last_seen.total_cmp(&b.1.last_seen))
                .map(|(hash, _)| hash.clone());
            if let Some(oldest) = oldest {
                inner.pending.remove(&oldest);
            }
        }
        let time = now();
        let pending = inner
            .pending
            .entry(hash.to_owned())
            .or_insert_with(|| PendingView {
                id: fingerprint(hash).to_owned(),
                address: String::new(),
                first_seen: time,
                last_seen: time,
                attempts: 0,
                agent: String::new(),
                key_ids: Vec::new(),
                keys: Vec::new(),
            });
        if let Some(key) = key {
            pending.keys.retain(|known| *known != key);
            // Who shows more of them than anybody has does not hide the others: nothing is pinned then.
            if pending.keys.len() < MAX_KEYS {
                pending.keys.push(key);
            }
            pending.key_ids = pending.keys.iter().map(|k| k.id().to_string()).collect();
        }
        address.clone_into(&mut pending.address);
        pending.agent = agent.chars().take(AGENT_LIMIT).collect();
        pending.last_seen = time;
        pending.attempts += 1;
        if !inner.identifiers.contains_key(hash) {
            self.publish_pending();
        }
    }

    /// Identifiers that wait, newest first.
    pub(crate) fn pending(&self) -> Vec<PendingView> {
        pending_list(&lock(&self.inner))
    }

    /// All registered or refused identifiers, by name.
    pub(crate) fn identifiers(&self) -> Vec<IdentifierView> {
        let inner = lock(&self.inner);
        let mut all: Vec<_> = inner
            .identifiers
            .values()
            .map(IdentifierView::from)
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Lets a pending or refused identifier in, and pins the key that its device has shown.
    pub(crate) async fn approve(
        &self,
        db: &Db,
        id: &str,
        settings: Settings,
        pin: &Pin,
    ) -> Result<IdentifierView> {
        let hash = self.find(id)?;
        let (known, shown) = {
            let inner = lock(&self.inner);
            let shown = inner.pending.get(&hash).map(|p| p.keys.clone());
            (inner.identifiers.get(&hash).cloned(), shown)
        };
        if let Some(known) = known {
            // One that is registered, or has pinned keys already, gets the named one besides.
            let mut key = pin.id.clone();
            if known.refused && !pin.none && !self.is_strict(&hash) {
                let chosen = pin.choose(shown.as_deref())?;
                return self.put(db, hash, settings, Some(false), chosen).await;
            } else if known.refused && key.is_some() {
                let chosen = pin.choose(shown.as_deref())?;
                key = chosen.map(|key| key.to_string());
            }
            if let Some(key) = key.filter(|_| !pin.none) {
                self.accept_key(db, &hash, Some(&key)).await?;
            }
            return self.put(db, hash, settings, Some(false), None).await;
        }
        let key = pin.choose(Some(&shown.unwrap_or_default()))?;
        self.put(db, hash, settings, Some(false), key).await
    }

    /// Keeps an identifier out.
    pub(crate) async fn refuse(&self, db: &Db, id: &str) -> Result<IdentifierView> {
        let hash = self.find(id)?;
        let settings = Settings::default();
        let put = self.put(db, hash.clone(), settings, Some(true), None);
        let view = put.await?;
        self.close_all(Some(&hash), "refused");
        Ok(view)
    }

    /// Registers an identifier before it first connects, or changes its settings where they are given. Also a warning.
    pub(crate) async fn register(
        &self,
        db: &Db,
        identifier: &str,
        settings: Settings,
    ) -> Result<(IdentifierView, Option<String>)> {
        check_identifier(identifier).map_err(IdentifierError::Invalid)?;
        {
            let inner = lock(&self.inner);
            check_secret(identifier, inner.identifiers.values(), inner.pending.keys())?;
        }
        let guessable = identifier.len() < super::GUESSABLE;
        let hash = hash(identifier);
        let view = self.put(db, hash, settings, Some(false), None).await?;
        let warning = guessable.then(|| {
            format!(
                "an identifier of {} characters was registered: whoever guesses it gets in as that device",
                identifier.len()
            )
        });
        if let Some(warning) = &warning {
            log::warn!("{warning}");
        }
        Ok((view, warning))
    }

    /// Changes what is said of an identifier that is registered or refused, and stays so.
    pub(crate) async fn set(
        &self,
        db: &Db,
        id: &str,
        settings: Settings,
    ) -> Result<IdentifierView> {
        let hash = self.find(id)?;
        self.put(db, hash, settings, None, None).await
    }

    /// Forgets an identifier and its instances; returns its hash.
    pub(crate) async fn forget(&self, db: &Db, id: &str) -> Result<String> {
        let hash = self.find(id)?;
        let _turn = self.turn(&hash).await;
        if lock(&self.inner).pending.remove(&hash).is_some() {
            self.publish_pending();
        }
        let row = hash.clone();
        db.call(move |store| store.delete_identifier(&row)).await?;
        self.close_all(Some(&hash), "forgotten");
        let mut inner = lock(&self.inner);
        let keys: Vec<Key> = agents_of(&inner, &hash)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.publish_removed(&inner, &key);
            inner.agents.remove(&key);
        }
        inner.identifiers.remove(&hash);
        inner.book.remove(&hash);
        drop(inner);
        Ok(hash)
    }

    /// Stores what is said of an identifier, and the key that is pinned with it. Without `refused` it stays what it is,
    /// which it has to be already.
    async fn put(
        &self,
        db: &Db,
        hash: String,
        settings: Settings,
        refused: Option<bool>,
        key: Option<PublicKey>,
    ) -> Result<IdentifierView> {
        let _turn = self.turn(&hash).await;
        let known = lock(&self.inner).identifiers.get(&hash).cloned();
        let refused = refused
            .or_else(|| known.as_ref().map(|k| k.refused))
            .ok_or(IdentifierError::Waits)?;
        let row = settings.over(&hash, known.as_ref(), refused)?;
        let tells = !refused && known.is_some_and(|known| differ(&known, &row));
        let stored = row.clone();
        let pinned = key.map(|key| DeviceKey {
            identifier: hash.clone(),
            instance: String::new(),
            key: key.to_string(),
            since: now(),
        });
        let pinned: Vec<DeviceKey> = pinned.into_iter().collect();
        let keys = pinned.clone();
        db.call(move |store| {
            store.put_identifier(&stored)?;
            if keys.is_empty() {
                return Ok(());
            }
            store.set_device_keys(&stored.hash, Some(""), &keys)
        })
        .await?;
        let view = IdentifierView::from(&row);
        let mut inner = lock(&self.inner);
        if !pinned.is_empty() {
            inner.pin(&hash, &pinned);
        }
        inner.identifiers.insert(hash.clone(), row);
        if tells {
            self.welcome_again(&inner, &hash);
        }
        let keys: Vec<Key> = agents_of(&inner, &hash)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &keys {
            self.publish(key);
        }
        // The keys of one that is refused are kept, should it be let in after all.
        let waited = if refused {
            inner.pending.contains_key(&hash)
        } else {
            inner.pending.remove(&hash).is_some()
        };
        if waited {
            self.publish_pending();
        }
        Ok(view)
    }

    /// The hash that an ID stands for: a whole identifier or the beginning of a fingerprint.
    fn find(&self, id: &str) -> Result<String> {
        let inner = lock(&self.inner);
        let whole = hash(id);
        if inner.identifiers.contains_key(&whole) || inner.pending.contains_key(&whole) {
            return Ok(whole);
        }
        let id = id.to_ascii_lowercase();
        if id.len() < ID_MIN {
            return Err(IdentifierError::Invalid(format!(
                "an ID has at least {ID_MIN} digits"
            )));
        }
        let pending = inner.pending.keys();
        let pending = pending.filter(|hash| !inner.identifiers.contains_key(*hash));
        let mut fitting = inner
            .identifiers
            .keys()
            .chain(pending)
            .filter(|hash| hash.starts_with(&id));
        match (fitting.next(), fitting.next()) {
            (Some(one), None) if id.len() <= FINGERPRINT || id.len() == one.len() => {
                Ok(one.clone())
            }
            (Some(_), Some(_)) => Err(IdentifierError::Ambiguous),
            _ => Err(IdentifierError::NotFound),
        }
    }

    fn publish_pending(&self) {
        self.events.publish(|| Change::Pending);
    }
}

fn pending_list(inner: &super::registry::Inner) -> Vec<PendingView> {
    let waits = inner.pending.iter();
    let waits = waits.filter(|(hash, _)| !inner.identifiers.contains_key(*hash));
    let mut all: Vec<_> = waits.map(|(_, pending)| pending.clone()).collect();
    all.sort_by(|a, b| b.last_seen.total_cmp(&a.last_seen));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Events;
    use crate::store::Snapshot;

    #[test]
    fn what_is_registered_does_not_wait_and_is_found_once() {
        let hash = hash("an-identifier-of-a-good-length");
        let registry = Registry::new(Snapshot::default(), Events::default(), 15);
        registry.knock(&hash, "192.0.2.1:1", "triton/0.1.0", None);
        assert_eq!(registry.pending().len(), 1);
        let row = Settings::default().over(&hash, None, false).unwrap();
        lock(&registry.inner).identifiers.insert(hash.clone(), row);
        assert_eq!(registry.find(fingerprint(&hash)).unwrap(), hash);
        lock(&registry.inner).pending.clear();
        registry.knock(&hash, "192.0.2.1:1", "triton/0.1.0", None);
        assert_eq!(registry.pending().len(), 0);
    }
}

//! What a person says about the keys of an identifier: which are pinned, and which are no more.

use super::{Keys, KeysView};
use crate::agents::identifiers::IdentifierError;
use crate::agents::registry::Registry;
use crate::jobs::lock;
use crate::store::Db;
use crate::time::now;
use triton::message::sign::{KeyId, PublicKey};

/// Pinned keys of one identifier.
const MAX_PINS: usize = 1000;

/// A key as a person names it: by its id, or whole.
enum Named {
    Id(KeyId),
    Whole(PublicKey),
}

impl Named {
    fn read(text: &str) -> Result<Self, IdentifierError> {
        match (text.parse(), text.parse()) {
            (Ok(id), _) => Ok(Self::Id(id)),
            (_, Ok(key)) => Ok(Self::Whole(key)),
            _ => Err(IdentifierError::Invalid(format!(
                "{text:?} is neither the id of a key (16 hex digits) nor a key in base64"
            ))),
        }
    }

    fn is(&self, key: &PublicKey) -> bool {
        match self {
            Self::Id(id) => key.id() == *id,
            Self::Whole(whole) => key == whole,
        }
    }
}

/// The ids of keys, for an error.
fn ids<'a>(keys: impl Iterator<Item = &'a PublicKey>) -> String {
    let ids: Vec<String> = keys.map(|key| key.id().to_string()).collect();
    ids.join(", ")
}

impl Keys {
    /// The key that is meant: of those that were refused or shown, or the only one there is.
    fn choose(&self, wanted: Option<&Named>) -> Result<PublicKey, String> {
        let wanted = match wanted {
            Some(Named::Whole(key)) => return Ok(*key),
            Some(Named::Id(id)) => Some(*id),
            None => None,
        };
        let refused = self.refused.iter().filter_map(|refused| refused.key);
        let mut offered: Vec<PublicKey> = refused.collect();
        if offered.is_empty() || wanted.is_some() {
            offered.extend(self.shown.values().map(|(key, _)| *key));
            offered.extend(self.pins.iter().map(|(key, _)| *key));
        }
        offered.sort_by_key(ToString::to_string);
        offered.dedup();
        match (wanted, offered.as_slice()) {
            (Some(id), offered) => {
                let known = offered.iter().find(|key| key.id() == id);
                known.copied().ok_or_else(|| {
                    format!(
                        "no device has come here with the key {id}: give the whole key, as 'triton trust show' prints it"
                    )
                })
            }
            (None, [key]) => Ok(*key),
            (None, []) => Err(
                "no device has shown a key here yet: give the key that 'triton trust show' prints there".to_owned(),
            ),
            (None, several) => Err(format!(
                "several keys were shown ({}): name the one that 'triton trust show' prints at the device",
                ids(several.iter())
            )),
        }
    }
}

impl Registry {
    /// Pins a key: the one with this id, among those that were refused or shown, or the only one there is.
    pub(crate) async fn accept_key(
        &self,
        db: &Db,
        identifier: &str,
        key: Option<&str>,
    ) -> Result<KeysView, IdentifierError> {
        let wanted = key.map(Named::read).transpose()?;
        let change = |keys: &Keys| {
            let chosen = keys
                .choose(wanted.as_ref())
                .map_err(IdentifierError::Invalid)?;
            let mut pins = keys.pins.clone();
            if !pins.iter().any(|(pin, _)| *pin == chosen) {
                pins.push((chosen, now()));
            }
            if pins.len() > MAX_PINS {
                return Err(IdentifierError::Invalid(format!(
                    "an identifier has at most {MAX_PINS} pinned keys: 'poseidon trust rm' takes one away"
                )));
            }
            Ok(pins)
        };
        self.change_pins(db, identifier, change).await
    }

    /// Takes a pinned key away: who has it gets in no more. The last one stays, since without any all would get in.
    pub(crate) async fn remove_key(
        &self,
        db: &Db,
        identifier: &str,
        key: &str,
    ) -> Result<KeysView, IdentifierError> {
        let wanted = Named::read(key)?;
        let change = |keys: &Keys| {
            let (gone, left): (Vec<_>, Vec<_>) =
                keys.pins.iter().partition(|(pin, _)| wanted.is(pin));
            if gone.is_empty() {
                let pinned = match ids(keys.pins.iter().map(|(pin, _)| pin)) {
                    none if none.is_empty() => "no key is".to_owned(),
                    ids => ids,
                };
                return Err(IdentifierError::Invalid(format!(
                    "the key {key} is not pinned; pinned: {pinned}"
                )));
            }
            if left.is_empty() {
                return Err(IdentifierError::LastKey);
            }
            Ok(left)
        };
        self.change_pins(db, identifier, change).await
    }

    /// Stores what `change` makes of the pinned keys, which are never none. All devices of the identifier have to come anew.
    async fn change_pins(
        &self,
        db: &Db,
        identifier: &str,
        change: impl FnOnce(&Keys) -> Result<Vec<(PublicKey, f64)>, IdentifierError>,
    ) -> Result<KeysView, IdentifierError> {
        let _turn = self.turn(identifier).await;
        let rows = {
            let inner = lock(&self.inner);
            let empty = Keys::default();
            let known = inner.book.get(identifier).unwrap_or(&empty);
            let pins = change(known)?;
            if pins == known.pins {
                // Nobody has to come anew for what is as it was.
                drop(inner);
                return Ok(self.keys_of(identifier));
            }
            let keys = Keys {
                pins,
                ..Keys::default()
            };
            keys.rows(identifier)
        };
        let (hash, stored) = (identifier.to_owned(), rows.clone());
        db.call(move |store| store.set_device_keys(&hash, Some(""), &stored))
            .await?;
        let mut inner = lock(&self.inner);
        let keys = inner.book.entry(identifier.to_owned()).or_default();
        keys.take(&rows);
        let pins: Vec<PublicKey> = keys.pins.iter().map(|(key, _)| *key).collect();
        keys.refused
            .retain(|refused| refused.key.is_none_or(|key| !pins.contains(&key)));
        self.publish_identifier(&inner, identifier);
        drop(inner);
        // Whoever is connected without a pinned key has to show one; who has one is welcomed as pinned.
        self.close_all(Some(identifier), "trust has changed");
        Ok(self.keys_of(identifier))
    }

    /// Forgets all keys of an identifier: its devices may come with any, as when it was registered.
    pub(crate) async fn reset_keys(
        &self,
        db: &Db,
        identifier: &str,
    ) -> Result<KeysView, IdentifierError> {
        let _turn = self.turn(identifier).await;
        let hash = identifier.to_owned();
        db.call(move |store| store.set_device_keys(&hash, None, &[]))
            .await?;
        let mut inner = lock(&self.inner);
        inner.book.remove(identifier);
        self.publish_identifier(&inner, identifier);
        drop(inner);
        self.close_all(Some(identifier), "trust has changed");
        Ok(self.keys_of(identifier))
    }
}

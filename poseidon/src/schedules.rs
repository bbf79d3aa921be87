//! Schedules: for each identifier what its devices run by their own clocks.
//!
//! They are checked here as the devices check them, but for the zones that only a device knows, and brought to them by
//! `agents::provision`.

use crate::blobs::sha256;
use crate::events::{Change, Events};
use crate::store::schedules::Schedule;
use crate::store::{Db, StoreError};
use crate::time::now;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

/// Digits of a revision.
const REVISION: usize = 16;

/// Why a schedule was not set.
#[derive(Debug)]
pub enum SetError {
    /// The identifier is gone.
    Unknown,
    /// Somebody else has changed it; the revision that is current.
    Conflict(String),
    /// A device would refuse it.
    Invalid(String),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for SetError {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

/// All schedules; identifiers are named by their hash.
pub struct Schedules {
    db: Db,
    events: Events,
}

impl Schedules {
    /// The schedules of a store.
    pub fn new(db: Db, events: Events) -> Self {
        Self { db, events }
    }

    /// What the devices of an identifier should run; `None` where nothing was ever set.
    pub async fn get(&self, identifier: &str) -> Result<Option<Schedule>, StoreError> {
        let identifier = identifier.to_owned();
        self.db.call(move |store| store.schedule(&identifier)).await
    }

    /// The revision of that: enough to tell whether a device has it.
    pub async fn revision(&self, identifier: &str) -> Result<Option<String>, StoreError> {
        let identifier = identifier.to_owned();
        self.db
            .call(move |store| store.schedule_revision(&identifier))
            .await
    }

    /// Sets all entries, and says whether anything has changed by it. With `parent` only if that is the current
    /// revision; an empty one stands for an identifier for which none was ever set.
    pub async fn set(
        &self,
        identifier: &str,
        entries: &Value,
        parent: Option<String>,
    ) -> Result<(bool, Schedule), SetError> {
        let schedule = checked(entries).map_err(SetError::Invalid)?;
        let key = identifier.to_owned();
        // In the store's thread, where nobody comes in between.
        let (changed, schedule) = self
            .db
            .call(move |store| {
                // It may have been forgotten since its name was looked up.
                if !store.knows(&key)? {
                    return Ok(Err(SetError::Unknown));
                }
                let before = store.schedule(&key).or_else(|e| match &parent {
                    // What is damaged can be set anew, unless somebody builds on it.
                    None => Ok(None),
                    Some(_) => Err(e),
                })?;
                let current = before.as_ref().map_or("", |s| s.revision.as_str());
                if parent.is_some_and(|parent| parent != current) {
                    return Ok(Err(SetError::Conflict(current.to_owned())));
                }
                if let Some(before) = before
                    && before.revision == schedule.revision
                {
                    return Ok(Ok((false, before)));
                }
                store.put_schedule(&key, &schedule)?;
                Ok(Ok((true, schedule)))
            })
            .await??;
        if changed {
            self.events.publish_content(identifier, Change::Schedule);
        }
        Ok((changed, schedule))
    }
}

/// A schedule of these entries, where devices would take it.
fn checked(entries: &Value) -> Result<Schedule, String> {
    let text = entries.to_string();
    let revision = sha256(text.as_bytes())
        .get(..REVISION)
        .unwrap_or_default()
        .to_owned();
    let set = json!({ "revision": revision, "entries": entries });
    triton::schedule::check(&set)?;
    Ok(Schedule {
        revision,
        entries: RawValue::from_string(text).map_err(|e| e.to_string())?,
        changed: now(),
    })
}

/// What `schedule.set` carries.
pub fn request(schedule: &Schedule) -> serde_json::Result<Box<RawValue>> {
    to_raw_value(&json!({ "revision": schedule.revision, "entries": schedule.entries }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_entries_are_the_same_revision() {
        let entry = |shell: &str| json!([{"name": "a", "cron": "* * * * *", "shell": shell}]);
        let one = checked(&entry("true")).unwrap();
        assert_eq!(one.revision.len(), REVISION);
        let turned: Value =
            serde_json::from_str(r#"[{"shell":"true","cron":"* * * * *","name":"a"}]"#).unwrap();
        assert_eq!(checked(&turned).unwrap().revision, one.revision);
        assert_ne!(checked(&entry("false")).unwrap().revision, one.revision);
        assert!(checked(&json!([])).is_ok());
    }

    #[test]
    fn what_a_device_would_refuse_is_named_by_entry_and_field() {
        for (entries, why) in [
            (json!({}), "entries is no list"),
            (
                json!([{"name": "a", "cron": "61 * * * *", "shell": "x"}]),
                "entry 1 (a): cron: ",
            ),
            (
                json!([{"name": "a", "cron": "0 0 30 2 *", "shell": "x"}]),
                "never comes",
            ),
            (
                json!([{"name": "a", "cron": "@daily", "shell": "x", "foo": 1}]),
                "\"foo\" is no field",
            ),
            (json!(vec![0; 257]), "256 are allowed"),
        ] {
            let error = checked(&entries).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let long = json!([{"name": "a", "cron": "@daily", "shell": "x".repeat(300_000)}]);
        assert!(checked(&long).unwrap_err().contains("262144"));
    }
}

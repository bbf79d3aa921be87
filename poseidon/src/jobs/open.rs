//! The jobs that have not ended.

use super::Live;
use crate::agents::Key;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Open jobs by token, and those of each instance in the order in which they were made.
#[derive(Default)]
pub(super) struct Open {
    by_token: HashMap<String, (u64, Arc<Live>)>,
    of: BTreeMap<Key, BTreeMap<u64, Arc<Live>>>,
    next: u64,
}

impl Open {
    pub fn add(&mut self, token: String, live: &Arc<Live>) {
        self.next += 1;
        let of = self.of.entry(live.key()).or_default();
        of.insert(self.next, live.clone());
        self.by_token.insert(token, (self.next, live.clone()));
    }

    pub fn remove(&mut self, token: &str) {
        let Some((number, live)) = self.by_token.remove(token) else {
            return;
        };
        let key = live.key();
        if let Some(of) = self.of.get_mut(&key) {
            of.remove(&number);
            if of.is_empty() {
                self.of.remove(&key);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.by_token.len()
    }

    pub fn get(&self, token: &str) -> Option<Arc<Live>> {
        self.by_token.get(token).map(|(_, live)| live.clone())
    }

    pub fn all(&self) -> Vec<Arc<Live>> {
        let all = self.by_token.values();
        all.map(|(_, live)| live.clone()).collect()
    }

    pub fn tokens(&self) -> HashSet<String> {
        self.by_token.keys().cloned().collect()
    }

    /// Those of an instance, or of all instances of an identifier.
    pub fn of(&self, identifier: &str, instance: Option<&str>) -> Vec<Arc<Live>> {
        let from = Key {
            identifier: identifier.to_owned(),
            instance: instance.unwrap_or("").to_owned(),
        };
        self.of
            .range(from..)
            .take_while(|(key, _)| {
                key.identifier == identifier && instance.is_none_or(|i| key.instance == i)
            })
            .flat_map(|(_, of)| of.values().cloned())
            .collect()
    }
}

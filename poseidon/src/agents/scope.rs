//! What somebody may see of the fleet: all of it, or the devices that selectors mean.

use super::Key;
use super::registry::{NameError, Registry, Target, agents_of};
use super::selector::{Facts, Hello, Selector, SelectorError};
use crate::jobs::lock;
use crate::store::{Identifier, Only};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Selectors of one scope.
pub const MAX_SELECTORS: usize = 64;

/// Which devices somebody sees and touches; those outside are as if they were not there.
#[derive(Debug, Default, Clone)]
pub struct Scope(Vec<Selector>);

/// Why selectors make no scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopeError {
    /// One makes no sense.
    Wrong(String, SelectorError),
    /// One goes by what changes by itself.
    State(String),
    /// There are too many.
    TooMany,
}

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(text, e) => write!(f, "the selector {text:?} is wrong {e}"),
            Self::State(text) => write!(
                f,
                "the selector {text:?} goes by the state: whom a token is for does not change when a device comes or goes"
            ),
            Self::TooMany => write!(f, "more than {MAX_SELECTORS} selectors"),
        }
    }
}

impl Scope {
    /// The devices that one of `on` means; all where there is none.
    pub fn new(on: &[String]) -> Result<Self, ScopeError> {
        if on.len() > MAX_SELECTORS {
            return Err(ScopeError::TooMany);
        }
        let read = |text: &String| {
            let selector: Selector = text
                .parse()
                .map_err(|e| ScopeError::Wrong(text.clone(), e))?;
            if selector.is_passing() {
                return Err(ScopeError::State(text.clone()));
            }
            Ok(selector)
        };
        on.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nothing is outside.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn covers(&self, facts: &Facts<'_>) -> bool {
        self.is_all() || self.0.iter().any(|selector| selector.selects(facts))
    }
}

/// What is known of one instance, copied so that it can be looked at without the lock.
struct Known {
    name: String,
    attributes: BTreeMap<String, String>,
    hello: Arc<Hello>,
}

impl Known {
    fn of(row: &Identifier, hello: Arc<Hello>) -> Self {
        Self {
            name: row.name.clone(),
            attributes: row.attributes.clone(),
            hello,
        }
    }

    fn is_in(&self, scope: &Scope, instance: &str) -> bool {
        scope.covers(&Facts {
            name: &self.name,
            instance,
            // No scope asks for it.
            up: false,
            attributes: &self.attributes,
            hello: &self.hello,
        })
    }
}

impl Registry {
    /// Whether this device is in the scope. One that was forgotten is in none but the whole.
    pub fn sees(&self, scope: &Scope, key: &Key) -> bool {
        if scope.is_all() {
            return true;
        }
        let known = {
            let inner = lock(&self.inner);
            let agent = inner.agents.get(key);
            let row = inner.identifiers.get(&key.identifier);
            agent
                .zip(row)
                .map(|(agent, row)| Known::of(row, agent.said.clone()))
        };
        known.is_some_and(|known| known.is_in(scope, &key.instance))
    }

    /// Whether what belongs to a whole identifier, such as its scripts, is in the scope: all its instances are, or
    /// what is known of it before the first one came.
    pub fn sees_identifier(&self, scope: &Scope, identifier: &str) -> bool {
        if scope.is_all() {
            return true;
        }
        let (all, bare) = {
            let inner = lock(&self.inner);
            let Some(row) = inner.identifiers.get(identifier) else {
                return false;
            };
            let all: Vec<(String, Known)> = agents_of(&inner, identifier)
                .map(|(key, agent)| {
                    let known = Known::of(row, agent.said.clone());
                    (key.instance.clone(), known)
                })
                .collect();
            (all, Known::of(row, Arc::default()))
        };
        if all.is_empty() {
            return bare.is_in(scope, "");
        }
        all.iter()
            .all(|(instance, known)| known.is_in(scope, instance))
    }

    /// All devices of the scope; nothing where that is all there are.
    pub fn scope_keys(&self, scope: &Scope) -> Option<Vec<Key>> {
        if scope.is_all() {
            return None;
        }
        let targets = self.select(scope, &[]);
        Some(targets.into_iter().map(|target| target.key).collect())
    }

    /// The same for a query of the store.
    pub fn only(&self, scope: &Scope) -> Only {
        let keys = self.scope_keys(scope)?;
        let pairs: Vec<_> = keys
            .iter()
            .map(|key| [&key.identifier, &key.instance])
            .collect();
        // Without it all would be seen.
        let text = serde_json::to_string(&pairs).unwrap_or_else(|_| "[]".to_owned());
        Some(text.into())
    }

    /// What a name, or a name and the beginning of an instance id, stands for within the scope; by instance.
    pub fn resolve(&self, scope: &Scope, name: &str) -> Result<Vec<Target>, NameError> {
        let (name, wanted) = name
            .split_once('/')
            .map_or((name, None), |(name, instance)| (name, Some(instance)));
        let (identifier, all) = self.named(name).ok_or(NameError::Unknown)?;
        let was_empty = all.is_empty();
        let all: Vec<Target> = all
            .into_iter()
            .filter(|target| self.sees(scope, &target.key))
            .collect();
        if all.is_empty() && !(was_empty && self.sees_identifier(scope, &identifier)) {
            return Err(NameError::Unknown);
        }
        let Some(wanted) = wanted else {
            return Ok(all);
        };
        let fitting: Vec<_> = all
            .into_iter()
            .filter(|t| t.key.instance.starts_with(wanted))
            .collect();
        // `plain` is whole, though `plain-2` begins with it.
        if let Some(exact) = fitting.iter().find(|t| t.key.instance == wanted) {
            return Ok(vec![exact.clone()]);
        }
        match fitting.len() {
            0 => Err(NameError::Unknown),
            1 => Ok(fitting),
            _ => Err(NameError::Ambiguous),
        }
    }
}

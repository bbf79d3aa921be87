//! Heartbeats that leave out what has not changed, and what they mean to who has the one before.

use serde_json::{Map, Value};

type Fields = Map<String, Value>;

const MARK: &str = "delta";
/// The second mark of a delta inside of whose lists and objects only changes stand.
const NESTED: &str = "nested";
/// Entries in a list of a nested delta at most.
const ENTRIES: usize = 256;
/// Lists whose entries are told apart by a member, so that an entry need not repeat what has not changed in it.
const NAMED: [(&str, &str); 4] = [
    ("fileSystems", "mount"),
    ("interfaces", "name"),
    ("metrics", "name"),
    ("temperatures", "label"),
];

/// How deep a delta goes; the server says what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// A field that has changed is there with all that is in it.
    Fields,
    /// Of a list's entries and an object's members only what has changed is there.
    Nested,
}

/// The fields of `current` that differ from `previous`, the last whole or composed heartbeat, marked as a delta. The
/// whole of `current` where a delta cannot say it: something has vanished.
pub fn delta(previous: &Value, current: &Value, depth: Depth) -> Value {
    let changed = match (previous, current) {
        (Value::Object(previous), Value::Object(current)) => changed(previous, current, depth),
        _ => None,
    };
    let Some(mut changed) = changed else {
        return current.clone();
    };
    changed.insert(MARK.to_owned(), Value::Bool(true));
    if depth == Depth::Nested {
        changed.insert(NESTED.to_owned(), Value::Bool(true));
    }
    Value::Object(changed)
}

/// Makes `whole`, the last heartbeat, the one that `delta` stands for. An error says why it cannot be; then `whole` is
/// as it was.
pub fn apply(whole: &mut Fields, mut delta: Fields) -> Result<(), String> {
    let nested = delta.remove(NESTED) == Some(Value::Bool(true));
    delta.remove(MARK);
    if !nested {
        whole.extend(delta);
        return Ok(());
    }
    // Each entry is looked for among the old ones and takes what it leaves out from there: a sender must not make
    // much of little.
    for (name, _) in NAMED {
        let too_long = |list: Option<&Value>| {
            list.and_then(Value::as_array)
                .is_some_and(|list| list.len() > ENTRIES)
        };
        if too_long(delta.get(name)) || too_long(whole.get(name)) {
            return Err(format!(
                "a delta with more than {ENTRIES} entries in {name}"
            ));
        }
    }
    for (name, new) in delta {
        let new = match (whole.remove(&name), new) {
            (Some(Value::Object(mut old)), Value::Object(new)) => {
                old.extend(new);
                Value::Object(old)
            }
            (Some(Value::Array(old)), Value::Array(new)) => match key(&name) {
                Some(key) => {
                    Value::Array(new.into_iter().map(|e| completed(&old, e, key)).collect())
                }
                None => Value::Array(new),
            },
            (_, new) => new,
        };
        whole.insert(name, new);
    }
    Ok(())
}

/// None where a delta cannot say it.
fn changed(previous: &Fields, current: &Fields, depth: Depth) -> Option<Fields> {
    let mut changed = Map::new();
    for (name, new) in current.iter().filter(|(name, _)| *name != MARK) {
        let new = match (previous.get(name), new) {
            (Some(old), new) if old == new => continue,
            (_, new) if depth == Depth::Fields => new.clone(),
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(differences(old, new)?),
            (Some(Value::Array(old)), Value::Array(new)) => match key(name) {
                Some(key) => {
                    let entries = new.iter().map(|entry| shortened(old, entry, key));
                    Value::Array(entries.collect::<Option<_>>()?)
                }
                None => Value::Array(new.clone()),
            },
            (_, new) => new.clone(),
        };
        changed.insert(name.clone(), new);
    }
    let has_vanished = |name: &String| name != MARK && !current.contains_key(name);
    (!previous.keys().any(has_vanished)).then_some(changed)
}

/// The members of `new` that `old` does not have like this. None where one has vanished.
fn differences(old: &Fields, new: &Fields) -> Option<Fields> {
    if old.keys().any(|name| !new.contains_key(name)) {
        return None;
    }
    let differs = |(name, value): &(&String, &Value)| old.get(*name) != Some(*value);
    let differing = new.iter().filter(differs);
    Some(differing.map(|(n, v)| (n.clone(), v.clone())).collect())
}

fn key(list: &str) -> Option<&'static str> {
    let mut named = NAMED.iter();
    named.find(|(name, _)| *name == list).map(|(_, key)| *key)
}

/// The entry of the list that has the same name.
fn namesake<'a>(list: &'a [Value], entry: &Value, key: &str) -> Option<&'a Fields> {
    let name = entry.get(key)?;
    let mut entries = list.iter();
    entries.find(|e| e.get(key) == Some(name))?.as_object()
}

/// An entry without what it has in common with its namesake in `old`, except for the name.
fn shortened(old: &[Value], entry: &Value, key: &str) -> Option<Value> {
    let (Some(old), Some(new)) = (namesake(old, entry, key), entry.as_object()) else {
        return Some(entry.clone());
    };
    let mut short = differences(old, new)?;
    short.insert(key.to_owned(), entry[key].clone());
    Some(Value::Object(short))
}

/// The reverse.
fn completed(old: &[Value], entry: Value, key: &str) -> Value {
    match (namesake(old, &entry, key).cloned(), entry) {
        (Some(mut old), Value::Object(new)) => {
            old.extend(new);
            Value::Object(old)
        }
        (_, entry) => entry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::payload::Heartbeat;
    use proptest::prelude::*;
    use serde_json::json;

    fn applied(previous: &Value, delta: &Value) -> Value {
        let (Value::Object(previous), Value::Object(delta)) = (previous, delta) else {
            panic!("a heartbeat is an object");
        };
        if delta.get(MARK) != Some(&Value::Bool(true)) {
            return Value::Object(delta.clone());
        }
        let mut whole = previous.clone();
        apply(&mut whole, delta.clone()).unwrap();
        Value::Object(whole)
    }

    #[test]
    fn only_changes_travel() {
        let previous = json!({"uptime": 1.0, "processes": 5, "loadAverage": [0.1, 0.0]});
        let current =
            json!({"uptime": 2.0, "processes": 5, "loadAverage": [0.1, 0.0], "agent": {}});
        let changes = delta(&previous, &current, Depth::Fields);
        assert_eq!(changes, json!({"delta": true, "uptime": 2.0, "agent": {}}));
        assert_eq!(
            delta(&current, &current, Depth::Fields),
            json!({"delta": true})
        );
        let read: Heartbeat = serde_json::from_value(changes).unwrap();
        assert!(read.delta && read.processes.is_none());
    }

    #[test]
    fn what_vanished_makes_it_whole() {
        let previous = json!({"uptime": 1.0, "temperatures": []});
        let current = json!({"uptime": 1.0});
        for depth in [Depth::Fields, Depth::Nested] {
            assert_eq!(delta(&previous, &current, depth), current);
            assert_eq!(delta(&Value::Null, &current, depth), current);
        }
        // A mark of its own is no field.
        let marked = json!({"uptime": 1.0, "delta": true});
        assert_eq!(
            delta(&marked, &current, Depth::Fields),
            json!({"delta": true})
        );
    }

    #[test]
    fn entries_and_objects_say_only_what_changed_in_them() {
        let previous = json!({
            "interfaces": [
                {"name": "eth0", "rxBytes": 1, "txBytes": 1, "addresses": ["192.0.2.1"]},
                {"name": "wlan0", "rxBytes": 5, "addresses": []},
            ],
            "agent": {"rss": 1, "jobs": 0},
        });
        let current = json!({
            "interfaces": [
                {"name": "eth0", "rxBytes": 2, "txBytes": 1, "addresses": ["192.0.2.1"]},
                {"name": "ppp0", "rxBytes": 0, "addresses": []},
            ],
            "agent": {"rss": 1, "jobs": 3},
        });
        let short = delta(&previous, &current, Depth::Nested);
        let expected = json!({
            "delta": true,
            "nested": true,
            "interfaces": [
                {"name": "eth0", "rxBytes": 2},
                {"name": "ppp0", "rxBytes": 0, "addresses": []},
            ],
            "agent": {"jobs": 3},
        });
        assert_eq!(short, expected);
        assert_eq!(applied(&previous, &short), current);
        // Who does not take such gets each changed field with all that is in it.
        let plain = delta(&previous, &current, Depth::Fields);
        assert_eq!(plain["interfaces"], current["interfaces"]);
        assert_eq!(plain["agent"], current["agent"]);
        assert_eq!(applied(&previous, &plain), current);
        // What vanished in an entry makes all of it whole.
        let less = json!({"interfaces": [{"name": "eth0", "rxBytes": 2}], "agent": {}});
        assert_eq!(delta(&previous, &less, Depth::Nested), less);
    }

    #[test]
    fn a_long_list_is_refused() {
        let list = |n: usize| json!(vec![json!({"name": ""}); n]);
        let (mut whole, mut delta) = (Map::new(), Map::new());
        whole.insert("interfaces".to_owned(), list(1));
        delta.insert(NESTED.to_owned(), Value::Bool(true));
        delta.insert("interfaces".to_owned(), list(ENTRIES + 1));
        let before = whole.clone();
        assert!(apply(&mut whole, delta.clone()).is_err());
        assert_eq!(whole, before);
        delta.insert("interfaces".to_owned(), list(ENTRIES));
        apply(&mut whole, delta.clone()).unwrap();
        whole.insert("interfaces".to_owned(), list(ENTRIES + 1));
        assert!(apply(&mut whole, delta).is_err());
    }

    /// Heartbeats of a few small names and values, so that all kinds of changes come up; entries may share a name.
    fn heartbeats() -> impl Strategy<Value = Value> {
        let object = || prop::collection::btree_map("[ab]", 0..3_u8, 0..3);
        let entry = (prop::option::of("[xy]"), object()).prop_map(|(name, fields)| {
            let mut entry = json!(fields);
            if let Some(name) = name {
                entry["name"] = json!(name);
            }
            entry
        });
        let list = || prop::collection::vec(entry.clone(), 0..4);
        (
            prop::option::of(list()),
            prop::option::of(object()),
            object(),
        )
            .prop_map(|(interfaces, agent, fields)| {
                let mut beat = json!(fields);
                if let Some(interfaces) = interfaces {
                    beat["interfaces"] = json!(interfaces);
                }
                if let Some(agent) = agent {
                    beat["agent"] = json!(agent);
                }
                beat
            })
    }

    proptest! {
        #[test]
        fn a_delta_means_what_it_was_made_from(previous in heartbeats(), current in heartbeats()) {
            for depth in [Depth::Fields, Depth::Nested] {
                prop_assert_eq!(&applied(&previous, &delta(&previous, &current, depth)), &current);
            }
        }
    }
}

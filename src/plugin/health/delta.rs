//! Heartbeats that leave out what has not changed.

use serde_json::{Map, Value};

const MARK: &str = "delta";

/// The fields of `current` that differ from `previous`, the last whole or composed heartbeat, marked as a delta. The
/// whole of `current` where a delta cannot say it: a field that has vanished.
pub fn delta(previous: &Value, current: &Value) -> Value {
    let (Value::Object(previous), Value::Object(current)) = (previous, current) else {
        return current.clone();
    };
    let has_vanished = |name: &String| name != MARK && !current.contains_key(name);
    if previous.keys().any(has_vanished) {
        return Value::Object(current.clone());
    }
    let mut changed: Map<String, Value> = current
        .iter()
        .filter(|(name, value)| *name != MARK && previous.get(*name) != Some(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    changed.insert(MARK.to_owned(), Value::Bool(true));
    Value::Object(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::payload::Heartbeat;
    use serde_json::json;

    #[test]
    fn only_changes_travel() {
        let previous = json!({"uptime": 1.0, "processes": 5, "loadAverage": [0.1, 0.0]});
        let current =
            json!({"uptime": 2.0, "processes": 5, "loadAverage": [0.1, 0.0], "agent": {}});
        let changes = delta(&previous, &current);
        assert_eq!(changes, json!({"delta": true, "uptime": 2.0, "agent": {}}));
        assert_eq!(delta(&current, &current), json!({"delta": true}));
        let read: Heartbeat = serde_json::from_value(changes).unwrap();
        assert!(read.delta && read.processes.is_none());
    }

    #[test]
    fn what_vanished_makes_it_whole() {
        let previous = json!({"uptime": 1.0, "temperatures": []});
        let current = json!({"uptime": 1.0});
        assert_eq!(delta(&previous, &current), current);
        assert_eq!(delta(&Value::Null, &current), current);
        // A mark of its own is no field.
        let marked = json!({"uptime": 1.0, "delta": true});
        assert_eq!(delta(&marked, &current), json!({"delta": true}));
    }
}

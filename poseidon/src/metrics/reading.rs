//! From a heartbeat to numbers with names.

use serde_json::{Map, Value};
use std::collections::HashMap;

/// Entries of one list that are kept over time.
const ENTRIES: usize = 16;
/// Metrics of plugins and scripts in one heartbeat, as many as an agent has.
const METRICS: usize = 64;
/// Longest name of a metric and of a part of the device, longest unit, in bytes.
const NAME: usize = 64;
const UNIT: usize = 16;

/// A number with its name and unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Numbers of the heartbeat itself have a colon in it, which a metric of a plugin cannot have.
    pub name: String,
    /// In what it is measured; `share` is of 1.
    pub unit: String,
    /// The number.
    pub value: f64,
}

/// Counters of interfaces, and when they were read.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    at: f64,
    bytes: HashMap<String, f64>,
}

/// What a whole heartbeat says that came at `at`. `counters` are those of the one before, from which the rates follow.
pub fn read(health: &Map<String, Value>, at: f64, counters: &mut Counters) -> Vec<Reading> {
    let mut found = Vec::new();
    let mut push = |name: String, unit: &str, value: Option<f64>| {
        // What is kept has seven digits.
        #[allow(clippy::cast_possible_truncation)]
        if let Some(value) = value.filter(|value| (*value as f32).is_finite()) {
            let unit = unit.to_owned();
            found.push(Reading { name, unit, value });
        }
    };
    let number = |field: &str| health.get(field).and_then(Value::as_f64);
    push("system:load".to_owned(), "share", number("systemLoad"));
    let average = health.get("loadAverage").and_then(|list| list.get(0));
    push(
        "system:load1".to_owned(),
        "",
        average.and_then(Value::as_f64),
    );
    let total = number("physicalMemoryTotal");
    let used = match (total, number("physicalMemoryAvailable")) {
        (Some(total), Some(available)) => Some(total - available),
        _ => number("physicalMemoryUsed"),
    };
    push("system:memory".to_owned(), "share", share(used, total));
    push("system:processes".to_owned(), "", number("processes"));
    let rss = health.get("agent").and_then(|agent| agent["rss"].as_f64());
    push("agent:rss".to_owned(), "B", rss);
    for entry in list(health, "temperatures", ENTRIES) {
        if let Some(label) = text(&entry["label"]) {
            push(
                format!("temperature:{label}"),
                "°C",
                entry["celsius"].as_f64(),
            );
        }
    }
    for entry in list(health, "fileSystems", ENTRIES) {
        let used = entry["spaceUsed"].as_f64();
        let whole = match (used, entry["spaceAvailable"].as_f64()) {
            (Some(used), Some(available)) => Some(used + available),
            _ => entry["spaceTotal"].as_f64(),
        };
        if let Some(mount) = text(&entry["mount"]) {
            push(format!("disk:{mount}"), "share", share(used, whole));
        }
    }
    let mut now = Counters {
        at,
        bytes: HashMap::new(),
    };
    for entry in list(health, "interfaces", ENTRIES) {
        let Some(name) = text(&entry["name"]) else {
            continue;
        };
        for (way, field) in [("rx", "rxBytes"), ("tx", "txBytes")] {
            let Some(bytes) = entry[field].as_f64() else {
                continue;
            };
            let name = format!("{way}:{name}");
            let before = counters.bytes.get(&name);
            // A counter that is lower began anew with a boot.
            let more = before
                .map(|before| bytes - before)
                .filter(|more| *more >= 0.0);
            let passed = at - counters.at;
            push(
                name.clone(),
                "B/s",
                more.filter(|_| passed > 0.0).map(|more| more / passed),
            );
            now.bytes.insert(name, bytes);
        }
    }
    *counters = now;
    for entry in list(health, "metrics", METRICS) {
        if let Some(name) = entry["name"].as_str().filter(|name| is_name(name)) {
            let unit = entry["unit"].as_str().unwrap_or_default();
            let unit: String = unit
                .chars()
                .filter(|c| !c.is_control())
                .take(UNIT / 2)
                .collect();
            push(name.to_owned(), &unit, entry["value"].as_f64());
        }
    }
    found
}

/// Whether a metric of a plugin may be called so.
pub fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    (1..=NAME).contains(&name.len()) && name.chars().all(fits)
}

fn share(part: Option<f64>, whole: Option<f64>) -> Option<f64> {
    let whole = whole.filter(|whole| *whole > 0.0)?;
    Some(part? / whole)
}

fn list<'a>(
    health: &'a Map<String, Value>,
    field: &str,
    most: usize,
) -> impl Iterator<Item = &'a Value> {
    let list = health.get(field).and_then(Value::as_array);
    list.into_iter().flatten().take(most)
}

/// What a device calls a part of it.
fn text(value: &Value) -> Option<String> {
    let name = value.as_str().filter(|name| !name.is_empty())?;
    let shown = |c: char| if c.is_control() { '_' } else { c };
    Some(
        name[..name.floor_char_boundary(NAME)]
            .chars()
            .map(shown)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn readings(health: Value, at: f64, counters: &mut Counters) -> Vec<(String, String, f64)> {
        let Value::Object(health) = health else {
            unreachable!()
        };
        let readings = read(&health, at, counters).into_iter();
        readings.map(|r| (r.name, r.unit, r.value)).collect()
    }

    #[test]
    fn a_heartbeat_is_numbers() {
        let mut counters = Counters::default();
        let beat = |rx: u64| {
            json!({
                "systemLoad": 0.5, "loadAverage": [1.5, 1.0], "processes": 80,
                "physicalMemoryTotal": 1000, "physicalMemoryAvailable": 250, "agent": {"rss": 4096},
                "temperatures": [{"label": "cpu", "celsius": 51.5}, {"label": "", "celsius": 1}],
                "fileSystems": [{"mount": "/overlay", "spaceUsed": 30, "spaceAvailable": 10}, {"mount": "/x"}],
                "interfaces": [{"name": "eth0", "rxBytes": rx, "txBytes": 5}],
                "metrics": [{"name": "queue/mail", "value": 7, "unit": "mails"}, {"name": "a b", "value": 1}, {"name": "none", "value": null},
                    {"name": "vast", "value": 1e39}, {"name": "low", "value": -1e308}],
            })
        };
        let of = |list: &[(String, String, f64)], name: &str| {
            let one = list.iter().find(|(n, ..)| n == name);
            one.map(|(_, unit, value)| (unit.clone(), *value))
        };
        let first = readings(beat(1000), 100.0, &mut counters);
        assert_eq!(first.len(), 8, "{first:?}");
        for (name, unit, value) in [
            ("system:load", "share", 0.5),
            ("system:load1", "", 1.5),
            ("system:memory", "share", 0.75),
            ("system:processes", "", 80.0),
            ("agent:rss", "B", 4096.0),
            ("temperature:cpu", "°C", 51.5),
            ("disk:/overlay", "share", 0.75),
            ("queue/mail", "mails", 7.0),
        ] {
            assert_eq!(of(&first, name), Some((unit.to_owned(), value)), "{name}");
        }
        let second = readings(beat(4000), 130.0, &mut counters);
        assert_eq!(of(&second, "rx:eth0"), Some(("B/s".to_owned(), 100.0)));
        assert_eq!(of(&second, "tx:eth0"), Some(("B/s".to_owned(), 0.0)));
        // It was booted.
        let third = readings(beat(10), 160.0, &mut counters);
        assert_eq!(of(&third, "rx:eth0"), None);
    }

    #[test]
    fn nonsense_is_no_number_and_much_is_cut_off() {
        let mut counters = Counters::default();
        let many: Vec<_> = (0..10_000)
            .map(|n| json!({"name": format!("m{n}"), "value": n}))
            .collect();
        let much: Vec<_> = (0..10_000)
            .map(|n| json!({"label": format!("{n}{}", "ü".repeat(500)), "celsius": n}))
            .collect();
        let all = readings(
            json!({"metrics": many, "temperatures": much, "interfaces": {"a": 1}, "agent": 7, "systemLoad": "x"}),
            1.0,
            &mut counters,
        );
        assert_eq!(all.len(), METRICS + ENTRIES);
        assert!(all.iter().all(|(name, ..)| name.len() <= 80));
    }
}

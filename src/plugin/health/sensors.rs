//! Temperatures, from the kernel's thermal zones and hardware monitors.

use super::source::Source;
use super::{LIST_LIMIT, rounded};
use crate::message::payload::Temperature;

/// Sensors that are not there report -273, 65261 and the like.
const SANE: std::ops::RangeInclusive<f64> = -100.0..=250.0;
/// Longest label in characters.
const LABEL_LIMIT: usize = 64;

/// All sensors that answer. None where there is none.
pub(super) fn read(source: &Source) -> Option<Vec<Temperature>> {
    let mut found: Vec<Temperature> = Vec::new();
    let zones = numbered(source, "sys/class/thermal", "thermal_zone");
    for path in zones {
        if let Some(celsius) = celsius(source, &format!("{path}/temp")) {
            let label = source.word(&format!("{path}/type"));
            add(&mut found, label.as_deref().unwrap_or("thermal"), celsius);
        }
    }
    // Most zones appear a second time as a monitor named after them, with underscores for dashes.
    let plain = |label: &str| label.replace('-', "_");
    let zones: Vec<String> = found.iter().map(|t| plain(&t.label)).collect();
    for path in numbered(source, "sys/class/hwmon", "hwmon") {
        let name = source.word(&format!("{path}/name"));
        let name = name.unwrap_or_else(|| "hwmon".to_owned());
        if zones.contains(&plain(&name)) {
            continue;
        }
        let files = source.sorted_names(&path).unwrap_or_default();
        for file in &files {
            let Some(sensor) = file
                .strip_suffix("_input")
                .filter(|f| f.starts_with("temp"))
            else {
                continue;
            };
            let Some(celsius) = celsius(source, &format!("{path}/{file}")) else {
                continue;
            };
            let label = source.word(&format!("{path}/{sensor}_label"));
            let label = label.map_or_else(|| name.clone(), |label| format!("{name} {label}"));
            add(&mut found, &label, celsius);
        }
    }
    (!found.is_empty()).then_some(found)
}

fn numbered(source: &Source, folder: &str, prefix: &str) -> Vec<String> {
    let names = source.sorted_names(folder).unwrap_or_default();
    let is_one = |name: &&String| name.starts_with(prefix);
    let names = names.iter().filter(is_one).take(LIST_LIMIT);
    names.map(|name| format!("{folder}/{name}")).collect()
}

fn celsius(source: &Source, path: &str) -> Option<f64> {
    let thousandths: i64 = source.number(path)?;
    let celsius = rounded(thousandths as f64 / 1000.0, 1);
    SANE.contains(&celsius).then_some(celsius)
}

/// Equal labels are told apart by number: "core", "core 2".
fn add(found: &mut Vec<Temperature>, label: &str, celsius: f64) {
    if found.len() >= LIST_LIMIT {
        return;
    }
    let label: String = label.chars().take(LABEL_LIMIT).collect();
    let taken = |label: &str| found.iter().any(|t| t.label == label);
    let mut unique = label.clone();
    let mut number = 2;
    while taken(&unique) {
        unique = format!("{label} {number}");
        number += 1;
    }
    found.push(Temperature {
        label: unique,
        celsius,
    });
}

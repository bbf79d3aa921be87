//! Numbers that scripts and plugins add to the heartbeats (`docs/protocol.md` section 9). In memory: each has its time to
//! live, and who measures measures again.

use crate::message::Message;
use crate::message::payload::{self, Error, ErrorCode, Metric};
use serde_json::{Value, json};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest name, in bytes.
const NAME_LIMIT: usize = 64;
/// Longest unit, in characters.
const UNIT_LIMIT: usize = 16;
/// Seconds that a value lives where nothing else is said, and the most.
const TTL: f64 = 300.0;
const LONGEST: f64 = 86_400.0;

/// The values that are there now.
pub struct Metrics {
    most: usize,
    table: Mutex<Vec<(Metric, Instant)>>,
}

impl Metrics {
    /// At most so many at once.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            table: Mutex::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Vec<(Metric, Instant)>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a `metric` message, whoever sent it.
    pub fn answer(&self, message: &Message) -> Message {
        let unreadable = |e: payload::PayloadError| Error::new(ErrorCode::Invalid, e.to_string());
        let asked = message.read::<Value>().map_err(unreadable);
        match asked.and_then(|asked| self.put(&asked)) {
            Ok(()) => message.reply(payload::RESULT, &json!({ "status": "succeeded" })),
            Err(error) => message.reply(payload::ERROR, &error),
        }
    }

    /// Does what the payload of a `metric` asks for, whoever sent it.
    pub fn put(&self, asked: &Value) -> Result<(), Error> {
        let invalid = |message: &str| Error::new(ErrorCode::Invalid, message);
        let name = asked.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| invalid("name is missing, or is no text"))?;
        let value = match asked.get("value") {
            None => return Err(invalid("value is missing; null takes the metric away")),
            // In XML an empty element is the nearest to null.
            Some(value) if value.is_null() || value.as_str().is_some_and(str::is_empty) => None,
            Some(value) => Some(number(value).ok_or_else(|| invalid("value is no number"))?),
        };
        let ttl = match asked.get("ttl") {
            None | Some(Value::Null) => None,
            Some(ttl) => Some(number(ttl).ok_or_else(|| invalid("ttl is no number"))?),
        };
        let unit = match asked.get("unit") {
            None | Some(Value::Null) => None,
            Some(unit) => Some(unit.as_str().ok_or_else(|| invalid("unit is no text"))?),
        };
        self.set(name, value, ttl, unit)
    }

    /// Sets a value for `ttl` seconds; without one takes it away.
    pub fn set(
        &self,
        name: &str,
        value: Option<f64>,
        ttl: Option<f64>,
        unit: Option<&str>,
    ) -> Result<(), Error> {
        self.set_at(Instant::now(), name, value, ttl, unit)
    }

    fn set_at(
        &self,
        now: Instant,
        name: &str,
        value: Option<f64>,
        ttl: Option<f64>,
        unit: Option<&str>,
    ) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::new(ErrorCode::Invalid, message));
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
        if !(1..=NAME_LIMIT).contains(&name.len()) || !name.bytes().all(is_plain) {
            return invalid(format!(
                "a name has 1 to {NAME_LIMIT} letters, digits, '.', '_', '-' and '/'"
            ));
        }
        let unit = unit.filter(|unit| !unit.is_empty());
        if unit.is_some_and(|u| u.chars().count() > UNIT_LIMIT || u.chars().any(char::is_control)) {
            return invalid(format!(
                "a unit has at most {UNIT_LIMIT} characters, none of them a control character"
            ));
        }
        let ttl = ttl.unwrap_or(TTL);
        if !(1.0..=LONGEST).contains(&ttl) {
            return invalid(format!("ttl goes from 1 to {LONGEST} seconds"));
        }
        #[allow(clippy::cast_possible_truncation, reason = "Poseidon keeps no more")]
        if value.is_some_and(|value| !(value as f32).is_finite()) {
            return invalid("a value is a number from -3.4e38 to 3.4e38".to_owned());
        }
        let mut table = self.table();
        table.retain(|(_, until)| *until > now);
        let at = table.iter().position(|(metric, _)| metric.name == name);
        let Some(value) = value else {
            if let Some(at) = at {
                table.remove(at);
            }
            return Ok(());
        };
        let new = Metric {
            name: name.to_owned(),
            value,
            unit: unit.map(str::to_owned),
        };
        let until = now + Duration::from_secs_f64(ttl);
        match at {
            Some(at) => table[at] = (new, until),
            None if table.len() < self.most => table.push((new, until)),
            None => {
                let message = format!(
                    "there are {} metrics, which is the most (metrics.max); take one away, or let one expire",
                    self.most
                );
                return Err(Error::new(ErrorCode::Busy, message));
            }
        }
        Ok(())
    }

    /// What lives, for a heartbeat; `None` where nothing does.
    pub fn list(&self) -> Option<Vec<Metric>> {
        self.list_at(Instant::now())
    }

    fn list_at(&self, now: Instant) -> Option<Vec<Metric>> {
        let mut table = self.table();
        table.retain(|(_, until)| *until > now);
        let list: Vec<Metric> = table.iter().map(|(metric, _)| metric.clone()).collect();
        (!list.is_empty()).then_some(list)
    }
}

/// A number, which in XML is a text.
fn number(value: &Value) -> Option<f64> {
    let text = || value.as_str()?.trim().parse().ok();
    value.as_f64().or_else(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(metrics: &Metrics, now: Instant) -> Vec<String> {
        let list = metrics.list_at(now).unwrap_or_default();
        list.into_iter().map(|m| m.name).collect()
    }

    #[test]
    fn a_value_lives_as_long_as_it_was_given() {
        let metrics = Metrics::new(4);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs_f64(seconds);
        metrics.set_at(begin, "a", Some(1.0), None, None).unwrap();
        let set = |at, ttl| metrics.set_at(at, "b", Some(2.0), Some(ttl), Some("W"));
        set(begin, 1.0).unwrap();
        assert_eq!(names(&metrics, at(0.9)), ["a", "b"]);
        assert_eq!(names(&metrics, at(1.0)), ["a"]);
        set(at(2.0), 1.0).unwrap();
        set(at(2.5), 86_400.0).unwrap();
        assert_eq!(names(&metrics, at(299.9)), ["a", "b"]);
        assert_eq!(names(&metrics, at(300.0)), ["b"]);
        let list = metrics.list_at(at(301.0)).unwrap();
        assert_eq!((list[0].value, list[0].unit.as_deref()), (2.0, Some("W")));
        metrics.set("b", None, None, None).unwrap();
        assert_eq!(metrics.list(), None);
        metrics.set("b", None, None, None).unwrap();
    }

    #[test]
    fn there_are_no_more_than_so_many() {
        let metrics = Metrics::new(2);
        let begin = Instant::now();
        let set = |at, name| metrics.set_at(at, name, Some(1.0), Some(10.0), None);
        set(begin, "a").unwrap();
        set(begin + Duration::from_secs(5), "b").unwrap();
        let refused = set(begin + Duration::from_secs(6), "c").unwrap_err();
        assert_eq!(refused.code, ErrorCode::Busy);
        assert!(refused.message.contains("metrics.max"), "{refused:?}");
        // One that is there is no more, and one that has expired makes room.
        set(begin + Duration::from_secs(6), "b").unwrap();
        set(begin + Duration::from_secs(10), "c").unwrap();
        assert_eq!(names(&metrics, begin + Duration::from_secs(10)), ["b", "c"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let metrics = Metrics::new(2);
        for (asked, part) in [
            (json!({}), "name"),
            (json!({"name": 1, "value": 1}), "name"),
            (json!({"name": "a"}), "value is missing"),
            (json!({"name": "a", "value": "x"}), "no number"),
            (json!({"name": "a", "value": "inf"}), "3.4e38"),
            (json!({"name": "a", "value": 1e308}), "3.4e38"),
            (json!({"name": "a", "value": -1e39}), "3.4e38"),
            (json!({"name": "a", "value": [1]}), "no number"),
            (json!({"name": "", "value": 1}), "1 to 64"),
            (json!({"name": "a b", "value": 1}), "1 to 64"),
            (json!({"name": "a".repeat(65), "value": 1}), "1 to 64"),
            (json!({"name": "a", "value": 1, "ttl": 0}), "86400"),
            (json!({"name": "a", "value": 1, "ttl": 86401}), "86400"),
            (json!({"name": "a", "value": 1, "ttl": "nan"}), "86400"),
            (json!({"name": "a", "value": 1, "unit": 7}), "unit"),
            (json!({"name": "a", "value": 1, "unit": "a\nb"}), "unit"),
            (
                json!({"name": "a", "value": 1, "unit": "x".repeat(17)}),
                "unit",
            ),
        ] {
            let refused = metrics.put(&asked).unwrap_err();
            assert_eq!(refused.code, ErrorCode::Invalid);
            assert!(refused.message.contains(part), "{asked}: {refused:?}");
        }
        assert_eq!(metrics.list(), None);
        // As XML gives it, and as it takes one away.
        metrics
            .put(&json!({"name": "net/loss", "value": " 2.5 ", "ttl": "60", "unit": "%"}))
            .unwrap();
        assert!((metrics.list().unwrap()[0].value - 2.5).abs() < 1e-9);
        metrics
            .put(&json!({"name": "net/loss", "value": null}))
            .unwrap();
        assert_eq!(metrics.list(), None);
    }
}

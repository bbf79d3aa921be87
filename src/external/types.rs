//! What a plugin says in its `hello`, and which types it may act on.

use crate::message::Message;
use crate::plugin::builtin::BUILTIN;
use serde_json::Value;

/// Most types of one plugin.
const TYPES: usize = 32;
/// Longest name of a type, and of a version.
const LENGTH: usize = 64;
/// Besides those of the built-in plugins: first words of the protocol's own types.
const RESERVED: [&str; 7] = [
    "event", "events", "metric", "nodes", "policy", "trust", "triton",
];

/// A plugin's `hello`.
#[derive(Debug, PartialEq, Eq)]
pub struct Introduction {
    pub version: String,
    pub types: Vec<String>,
    /// Whether it answers `ping`.
    pub pings: bool,
}

/// Reads it; the error is for the plugin and the log.
pub fn read(message: &Message) -> Result<Introduction, String> {
    let said: Value = message.read().map_err(|e| e.to_string())?;
    let version = said["plugin"]["version"].as_str().unwrap_or_default();
    let mut types = Vec::new();
    for one in said["types"].as_array().into_iter().flatten() {
        let one = one.as_str().ok_or("types is a list of texts")?;
        check(one)?;
        types.push(one.to_owned());
    }
    if types.len() > TYPES {
        return Err(format!("a plugin has at most {TYPES} types"));
    }
    let printable = version.chars().filter(|c| !c.is_control());
    Ok(Introduction {
        version: printable.take(LENGTH).collect(),
        types,
        pings: said["pings"] == true,
    })
}

fn check(name: &str) -> Result<(), String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let sound = name.len() <= LENGTH
        && name.bytes().all(known)
        && name.contains('.')
        && name.split('.').all(|part| !part.is_empty());
    if !sound {
        return Err(format!(
            "{:?} is no type for a plugin: up to {LENGTH} letters, digits, '_' and '-' with a dot between, such as gpio.set",
            name.chars().take(LENGTH).collect::<String>()
        ));
    }
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let own = first(name);
    let taken = RESERVED.contains(&own.as_str())
        || BUILTIN
            .iter()
            .any(|b| b.types.iter().any(|t| t.contains('.') && first(t) == own));
    if taken {
        return Err(format!(
            "{name} is not a plugin's to act on: types that begin with {own}. are the agent's own"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hello(payload: &Value) -> Result<Introduction, String> {
        read(&Message::with("hello", payload))
    }

    #[test]
    fn a_hello_may_be_short() {
        let hello = hello(&json!({})).unwrap();
        assert_eq!((hello.types.len(), hello.pings), (0, false));
    }

    #[test]
    fn types_are_a_plugins_own() {
        let types = |list: &[&str]| hello(&json!({"types": list, "pings": true}));
        let good = types(&["gpio.set", "a.b-c_d.E2"]).unwrap();
        assert_eq!(good.types, ["gpio.set", "a.b-c_d.E2"]);
        assert!(good.pings);
        for wrong in [
            "gpio",
            ".set",
            "gpio.",
            "gpio..set",
            "gpio set.x",
            "file.put",
            "file.other",
            "agent.x",
            "data.offer",
            "module.x",
            "nodes.x",
            "trust.show",
            "schedule.set",
            "é.x",
        ] {
            assert!(types(&[wrong]).is_err(), "{wrong}");
        }
        assert!(types(&vec!["a.b"; 33]).is_err());
        assert!(hello(&json!({"types": [7]})).is_err());
    }
}

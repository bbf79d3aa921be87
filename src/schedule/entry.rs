//! An entry as it is written down, in `schedule.set` or the configuration, and what it may be.

use super::cron::{self, Cron, When};
use super::next::HORIZON;
use super::zone::Zone;
use crate::job;
use crate::message::payload::{self, Command, OutputMode};
use crate::scripts;
use serde_json::{Map, Value};

/// Longest name.
pub const NAME_LIMIT: usize = 64;
/// Longest jitter: a day.
const JITTER_LIMIT: f64 = 86_400.0;

/// What is to be done where a run's time comes while an earlier one still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// The time is left out.
    Skip,
    /// One waits.
    Queue,
    /// Both run.
    Allow,
}

/// A checked entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name, which is unique among those of its source.
    pub name: String,
    /// The expression as it was written.
    pub cron: String,
    /// What it means.
    pub when: When,
    /// Its zone as it was written; none is the device's own.
    pub zone: Option<String>,
    /// A run is up to so many seconds late.
    pub jitter: u32,
    /// Whether missed times are made up for by one run.
    pub catch_up: bool,
    #[allow(missing_docs)]
    pub overlap: Overlap,
    #[allow(missing_docs)]
    pub enabled: bool,
    /// A script and its arguments. If there is none, `command` says what runs.
    pub script: Option<(String, Vec<String>)>,
    /// What runs, and within which bounds.
    pub command: Command,
}

/// Which field is wrong, and why. No field: the entry as a whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    #[allow(missing_docs)]
    pub field: &'static str,
    #[allow(missing_docs)]
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Switch,
    List,
    Table,
}

/// What an entry may hold. Those that say `true` are fields of a `command` as well.
const FIELDS: [(&str, Kind, bool); 19] = [
    ("name", Kind::Text, false),
    ("cron", Kind::Text, false),
    ("script", Kind::Text, false),
    ("command", Kind::List, false),
    ("shell", Kind::Text, true),
    ("args", Kind::List, false),
    ("timeZone", Kind::Text, false),
    ("jitterSeconds", Kind::Number, false),
    ("catchUp", Kind::Switch, false),
    ("overlap", Kind::Text, false),
    ("enabled", Kind::Switch, false),
    ("user", Kind::Text, true),
    ("group", Kind::Text, true),
    ("cwd", Kind::Text, true),
    ("env", Kind::Table, true),
    ("timeoutSeconds", Kind::Number, true),
    ("nice", Kind::Number, true),
    ("memoryBytes", Kind::Number, true),
    ("output", Kind::Text, true),
];

fn fault<T>(field: &'static str, why: impl Into<String>) -> Result<T, Fault> {
    let why = why.into();
    Err(Fault { field, why })
}

impl Entry {
    /// Reads and checks an entry. Its zone is not looked up: see [`Entry::zone`].
    pub fn read(entry: &Value) -> Result<Self, Fault> {
        let Some(entry) = entry.as_object() else {
            return fault("", "an entry is an object");
        };
        let mut command = Map::new();
        for (name, value) in entry {
            let Some((field, kind, passes)) = FIELDS.iter().find(|f| f.0 == name) else {
                let known = match by_snake(name) {
                    Some(field) => format!("; {field} is"),
                    None => String::new(),
                };
                return fault("", format!("{name:?} is no field of an entry{known}"));
            };
            let texts = |list: &Vec<Value>| list.iter().all(Value::is_string);
            let (right, wanted) = match kind {
                Kind::Text => (value.is_string(), "a text"),
                Kind::Number => (value.is_number(), "a number"),
                Kind::Switch => (value.is_boolean(), "true or false"),
                Kind::List => (value.as_array().is_some_and(texts), "a list of texts"),
                Kind::Table => {
                    let table = value.as_object();
                    let texts = table.is_some_and(|t| t.values().all(Value::is_string));
                    (texts, "a table of texts")
                }
            };
            if !right && !value.is_null() {
                return fault(field, format!("expected {wanted}"));
            }
            if *passes {
                command.insert(name.clone(), value.clone());
            }
        }
        let get = |name| entry.get(name).filter(|v| !v.is_null());
        let text = |name| get(name).and_then(Value::as_str);
        let name = text("name").unwrap_or_default();
        if !is_name(name) {
            return fault(
                "name",
                format!("expected 1 to {NAME_LIMIT} letters, digits, '.', '_' and '-'"),
            );
        }
        let Some(cron) = text("cron") else {
            return fault("cron", "is missing");
        };
        let when = match cron::parse(cron) {
            Ok(when) => when,
            Err(why) => return fault("cron", why),
        };
        let jitter = get("jitterSeconds").and_then(Value::as_f64).unwrap_or(0.0);
        if !(0.0..=JITTER_LIMIT).contains(&jitter) {
            return fault("jitterSeconds", format!("expected 0 to {JITTER_LIMIT}"));
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is in range"
        )]
        let jitter = jitter as u32;
        if let When::Times(cron) = &when {
            check_times(cron, jitter)?;
        }
        let zone = text("timeZone").map(str::to_owned);
        if let Some(Err(why)) = zone.as_deref().map(Zone::rule) {
            return fault("timeZone", why);
        }
        let overlap = match text("overlap") {
            None | Some("skip") => Overlap::Skip,
            Some("queue") => Overlap::Queue,
            Some("allow") => Overlap::Allow,
            Some(_) => return fault("overlap", "expected one of skip, queue, allow"),
        };
        let words = |name| {
            let list = get(name)?.as_array()?;
            let words = list.iter().filter_map(Value::as_str);
            Some(words.map(str::to_owned).collect::<Vec<_>>())
        };
        let (script, argv, arguments) = (text("script"), words("command"), words("args"));
        let ways = [script.is_some(), argv.is_some(), text("shell").is_some()];
        if ways.iter().filter(|way| **way).count() != 1 {
            return fault("", "say what runs by one of script, command and shell");
        }
        if arguments.is_some() && script.is_none() {
            return fault(
                "args",
                "go with a script; the words of a command stand in its list",
            );
        }
        if let Some(Err(why)) = script.map(scripts::check_name) {
            return fault("script", why);
        }
        Ok(Self {
            name: name.to_owned(),
            cron: cron.to_owned(),
            when,
            zone,
            jitter,
            catch_up: get("catchUp") == Some(&Value::Bool(true)),
            overlap,
            enabled: get("enabled") != Some(&Value::Bool(false)),
            script: script.map(|name| (name.to_owned(), arguments.unwrap_or_default())),
            command: bounds(argv, command, script.is_some())?,
        })
    }

    /// What its times are in. The device's own zone is not among them: it may change.
    pub fn zone(&self) -> Option<Result<Zone, String>> {
        self.zone.as_deref().map(Zone::named)
    }

    /// What its progress belongs to: where this changes, the entry begins anew. An entry that is switched off has
    /// nothing to miss.
    pub fn rule(&self) -> String {
        match (self.enabled, &self.zone) {
            (false, _) => "off".to_owned(),
            (true, None) => self.cron.clone(),
            (true, Some(zone)) => format!("{} {zone}", self.cron),
        }
    }
}

/// Whether the times come at all, and none before the one before is over.
fn check_times(cron: &Cron, jitter: u32) -> Result<(), Fault> {
    let Some(one) = cron.first(0, HORIZON) else {
        return fault("cron", "never comes: there is no such day");
    };
    let between = cron.first(one + 1, HORIZON + one).map(|two| two - one);
    match between {
        Some(between) if i64::from(jitter) > between => fault(
            "jitterSeconds",
            format!("is longer than the {between} s between two of its times"),
        ),
        _ => Ok(()),
    }
}

/// The command, which is held to the same rules as one that comes from outside.
fn bounds(
    argv: Option<Vec<String>>,
    mut rest: Map<String, Value>,
    is_script: bool,
) -> Result<Command, Fault> {
    let streams = rest.get("output").is_some_and(|o| o == "stream");
    if streams {
        return fault(
            "output",
            "expected one of discard (the end of it is kept), collect: nobody watches a run",
        );
    }
    if rest.get("output").is_none_or(Value::is_null) {
        rest.insert("output".to_owned(), "discard".into());
    }
    // By way of text: the code that reads a command from that is there already.
    let text = Value::Object(rest).to_string();
    let mut command: Command = match payload::from_json(&text) {
        Ok(command) => command,
        Err(e) => return fault("", e.to_string()),
    };
    debug_assert!(command.output != OutputMode::Stream);
    // What a script's program is, is known only when it runs.
    command.argv = if is_script {
        Some(vec!["script".to_owned()])
    } else {
        argv
    };
    if let Err(error) = job::check(&command) {
        return fault("", error.message);
    }
    if is_script {
        command.argv = None;
    }
    Ok(command)
}

fn is_name(text: &str) -> bool {
    let right = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=NAME_LIMIT).contains(&text.len()) && text.bytes().all(right)
}

/// Makes of texts, which is all that XML has, what the fields are.
pub fn from_xml(entry: &mut Value) {
    for (name, kind, _) in FIELDS {
        let Some(value) = entry.get_mut(name) else {
            continue;
        };
        let Some(text) = value.as_str().map(str::trim) else {
            continue;
        };
        let read = match kind {
            Kind::Number | Kind::Switch => payload::from_json(text).ok(),
            Kind::List => Some(Value::Array(vec![value.clone()])),
            Kind::Table if text.is_empty() => Some(Value::Null),
            Kind::Table | Kind::Text => None,
        };
        if let Some(read) = read {
            *value = read;
        }
    }
}

/// A field's name as the configuration writes it: `timeZone` is `time_zone`.
pub fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// How the configuration writes the field `name`, where that is another word.
pub fn snake_of(name: &str) -> Option<String> {
    let known = FIELDS.iter().any(|f| f.0 == name);
    known.then(|| snake(name)).filter(|snake| snake != name)
}

/// The field that the configuration writes as `name`.
pub fn by_snake(name: &str) -> Option<&'static str> {
    FIELDS
        .iter()
        .map(|f| f.0)
        .find(|field| snake(field) == name)
}

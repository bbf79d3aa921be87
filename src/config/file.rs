//! The file: TOML, read as a tree and matched with the table of settings.
//!
//! Not by serde: code for each section and each kind of value came to 120 kB on MIPS (`docs/size.md`).

use super::setting::{Kind, One, Setting, set_number};
use super::{Config, SETTINGS};
use crate::policy::{self, Action, Profile, Rule};
use crate::schedule::{self, Entry};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where in the text something is wrong, and what.
type Fault = (usize, String);

/// Reads TOML; the error begins with the number of the line.
pub(super) fn read(text: &str) -> Result<Config, String> {
    read_checked(text, &|policy, root| check_policy(policy, root))
}

/// Reads a file that has nothing but the policy; `profile` where the configuration names one.
pub(super) fn read_policy(
    text: &str,
    profile: Option<Profile>,
) -> Result<policy::Settings, String> {
    let check = |policy: &policy::Settings, root: &DeTable<'_>| {
        if let Some((name, _)) = root.iter().find(|(name, _)| *name.get_ref() != "policy") {
            let why = format!("`{}` has no place in a file of the policy", name.get_ref());
            return Err((name.span().start, why));
        }
        if policy.file.is_some() {
            let why = "policy.file cannot name another file".to_owned();
            return Err((place(root, "file"), why));
        }
        if policy.named && profile.is_some() {
            let why = "policy.profile is named by the configuration already".to_owned();
            return Err((place(root, "profile"), why));
        }
        // As after a power cut: it was to forbid something.
        if !policy.named && policy.rules.is_empty() {
            let why = "it says nothing: name policy.profile, or rules in [policy.deny.NAME] and [policy.allow.NAME]";
            return Err((0, why.to_owned()));
        }
        check_rules(policy, profile.unwrap_or(policy.profile))
    };
    read_checked(text, &check).map(|config| config.policy)
}

/// Where a name of the policy stands.
fn place(root: &DeTable<'_>, name: &str) -> usize {
    let policy = root.iter().find(|(key, _)| *key.get_ref() == "policy");
    let Some((_, DeValue::Table(policy))) = policy.map(|(key, value)| (key, value.get_ref()))
    else {
        return 0;
    };
    let found = policy.iter().find(|(key, _)| *key.get_ref() == name);
    found.map_or(0, |(key, _)| key.span().start)
}

/// Looks at all of it together.
type Check<'a> = &'a dyn Fn(&policy::Settings, &DeTable<'_>) -> Result<(), Fault>;

fn read_checked(text: &str, check: Check<'_>) -> Result<Config, String> {
    let mut config = Config::default();
    let fault = match DeTable::parse(text) {
        Ok(root) => table(&mut config, "", root.get_ref())
            .and_then(|()| check(&config.policy, root.get_ref()))
            .err(),
        Err(e) => {
            let start = e.span().map_or(0, |span| span.start);
            Some((start, e.message().trim_end().to_owned()))
        }
    };
    match fault {
        None => {
            for rule in &mut config.policy.rules {
                rule.line = line_of(text, rule.line);
            }
            Ok(config)
        }
        Some(fault) => Err(with_line(text, &fault)),
    }
}

fn line_of(text: &str, start: usize) -> usize {
    let before = text.get(..start).unwrap_or_default();
    before.matches('\n').count() + 1
}

fn with_line(text: &str, (start, why): &Fault) -> String {
    format!("{}: {why}", line_of(text, *start))
}

/// The sections `[schedule.NAME]` of a text as entries of `schedule.set`; the error begins with the number of the line.
/// For who sets them from elsewhere: the text has nothing else.
pub fn schedule(text: &str) -> Result<Vec<serde_json::Value>, String> {
    let fault = |(start, why): Fault| with_line(text, &(start, why));
    let root = DeTable::parse(text).map_err(|e| {
        let start = e.span().map_or(0, |span| span.start);
        fault((start, e.message().trim_end().to_owned()))
    })?;
    let mut entries = Vec::new();
    for (name, value) in root.get_ref() {
        let DeValue::Table(table) = value.get_ref() else {
            let why = format!("{}: {}", name.get_ref(), not("a table", value));
            return Err(fault((value.span().start, why)));
        };
        if name.get_ref() != "schedule" {
            let why = format!("[{}] is no section [schedule.NAME]", name.get_ref());
            return Err(fault((name.span().start, why)));
        }
        for (name, value) in table {
            let (fields, _) = entry(name.get_ref(), value).map_err(|(start, why)| {
                let start = start.unwrap_or(name.span().start);
                fault((start, format!("schedule.{}: {why}", name.get_ref())))
            })?;
            entries.push(fields);
        }
    }
    Ok(entries)
}

/// Reads a section; `prefix` is its name and a dot.
fn table(config: &mut Config, prefix: &str, section: &DeTable<'_>) -> Result<(), Fault> {
    for (name, value) in section {
        let key = format!("{prefix}{}", name.get_ref());
        // `"jobs.workers"` in quotes is a name of its own.
        let is_name = !name.get_ref().contains('.');
        if let Some(setting) = SETTINGS.iter().find(|s| is_name && s.key == key) {
            set(config, setting, value).map_err(|(start, why)| (start, format!("{key}: {why}")))?;
            continue;
        }
        let inner = format!("{key}.");
        if prefix.is_empty() && SETTINGS.iter().any(|s| s.key.starts_with(&inner)) {
            let DeValue::Table(section) = value.get_ref() else {
                return Err((
                    value.span().start,
                    format!("{key}: {}", not("a table", value)),
                ));
            };
            table(config, &inner, section)?;
        } else {
            return Err((name.span().start, unknown(prefix, name.get_ref())));
        }
    }
    Ok(())
}

/// Says which names there are.
fn unknown(prefix: &str, name: &str) -> String {
    let mut text = format!("unknown field `{name}`, expected one of ");
    let mut last = "";
    let known = SETTINGS
        .iter()
        .filter(|s| !matches!(s.kind, Kind::Former(_)))
        .filter_map(|s| s.key.strip_prefix(prefix));
    for known in known.map(|key| key.split('.').next().unwrap_or(key)) {
        // The settings of a section stand together.
        if known != last {
            if !last.is_empty() {
                text.push_str(", ");
            }
            text.push('`');
            text.push_str(known);
            text.push('`');
            last = known;
        }
    }
    text
}

/// What was wanted, and what stands there instead: its kind only, for it may be a secret.
fn not(wanted: &str, value: &Spanned<DeValue<'_>>) -> String {
    let found = value.get_ref().type_str();
    format!("expected {wanted}, but the value is of type {found}")
}

/// Sets one setting. What stands there is not repeated: it may be a secret.
fn set(config: &mut Config, setting: &Setting, value: &Spanned<DeValue<'_>>) -> Result<(), Fault> {
    let fault = |why| (value.span().start, why);
    match (&setting.kind, value.get_ref()) {
        (Kind::Number(least, most, number), DeValue::Integer(n)) => {
            let n = i64::from_str_radix(n.as_str(), n.radix()).ok();
            set_number(config, number, n, *least, *most).map_err(fault)
        }
        (Kind::Number(least, most, _), _) => {
            let wanted = format!("a whole number from {least} to {most}");
            Err(fault(not(&wanted, value)))
        }
        (Kind::Switch(place), DeValue::Boolean(on)) => {
            *place(config) = *on;
            Ok(())
        }
        (Kind::Switch(_), _) => Err(fault(not("true or false", value))),
        (Kind::Text(set), _) => set(config, text(value)?).map_err(fault),
        (Kind::Path(set), _) => {
            let path = PathBuf::from(text(value)?);
            if !path.is_absolute() {
                return Err(fault("expected an absolute path".to_owned()));
            }
            set(config, path).map_err(fault)
        }
        (Kind::AnyPath(place), _) => {
            *place(config) = Some(text(value)?.into());
            Ok(())
        }
        (Kind::List(_, set), DeValue::Array(list)) => {
            let texts = list.iter().map(|one| text(one).map(str::to_owned));
            set(config, texts.collect::<Result<_, _>>()?).map_err(fault)
        }
        (Kind::List(One::OrMore, set), DeValue::String(one)) => {
            set(config, vec![one.to_string()]).map_err(fault)
        }
        (Kind::List(One::OrMore, _), _) => Err(fault(not("a string, or a list of them", value))),
        (Kind::List(One::IsNoList, _), _) => Err(fault(not("a list of strings", value))),
        (Kind::Table(set), DeValue::Table(table)) => {
            let mut texts = BTreeMap::new();
            for (name, value) in table {
                texts.insert(name.get_ref().to_string(), text(value)?.to_owned());
            }
            set(config, texts).map_err(fault)
        }
        (Kind::Schedule, DeValue::Table(table)) => {
            if table.len() > schedule::ENTRIES {
                let most = schedule::ENTRIES;
                return Err(fault(format!("expected at most {most} entries")));
            }
            for (name, value) in table {
                let read = entry(name.get_ref(), value).map_err(|(start, why)| {
                    let start = start.unwrap_or(name.span().start);
                    (start, format!("{}: {why}", name.get_ref()))
                });
                config.schedule.push(Arc::new(read?.1));
            }
            Ok(())
        }
        (Kind::Rules(action), DeValue::Table(table)) => {
            for (name, value) in table {
                let read = rule(*action, name, value)
                    .map_err(|(start, why)| (start, format!("{}: {why}", name.get_ref())));
                let start = name.span().start;
                config.policy.add(read?).map_err(|why| (start, why))?;
            }
            Ok(())
        }
        (Kind::Table(_) | Kind::Schedule | Kind::Rules(_), _) => Err(fault(not("a table", value))),
        (Kind::Former(place), _) => {
            *place(config) = true;
            Ok(())
        }
    }
}

/// An entry of the schedule, with the names of this file: `time_zone` for `timeZone`. As `schedule.set` has it, and read.
fn entry(
    name: &str,
    value: &Spanned<DeValue<'_>>,
) -> Result<(serde_json::Value, Entry), (Option<usize>, String)> {
    let DeValue::Table(table) = value.get_ref() else {
        return Err((Some(value.span().start), not("a table", value)));
    };
    let mut fields = serde_json::Map::new();
    for (key, value) in table {
        let field = schedule::by_snake(key.get_ref()).filter(|field| *field != "name");
        let Some(field) = field else {
            let here = match schedule::snake_of(key.get_ref()) {
                Some(here) => format!("; `{here}` is"),
                None => String::new(),
            };
            let why = format!("`{}` is no field of an entry{here}", key.get_ref());
            return Err((Some(key.span().start), why));
        };
        fields.insert(field.to_owned(), json(value.get_ref()));
    }
    fields.insert("name".to_owned(), name.into());
    let fields = fields.into();
    let read = Entry::read(&fields).map_err(|fault| {
        let field = schedule::snake(fault.field);
        let place = table.iter().find(|(key, _)| *key.get_ref() == field);
        let start = place.map(|(_, value)| value.span().start);
        let dot = if field.is_empty() { "" } else { ": " };
        (start, format!("{field}{dot}{}", fault.why))
    });
    Ok((fields, read?))
}

/// A rule of the policy. Its line is the place in the text for now.
fn rule(
    action: Action,
    name: &Spanned<Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) -> Result<Rule, Fault> {
    let DeValue::Table(table) = value.get_ref() else {
        return Err((value.span().start, not("a table", value)));
    };
    let start = name.span().start;
    let mut rule = Rule::new(action, name.get_ref()).map_err(|why| (start, why))?;
    rule.line = start;
    for (key, value) in table {
        let known = policy::CONDITIONS;
        if !known.contains(&&**key.get_ref()) {
            let why = format!(
                "unknown condition `{}`, expected one of {}",
                key.get_ref(),
                known.join(", ")
            );
            return Err((key.span().start, why));
        }
        let items = match value.get_ref() {
            DeValue::String(one) => vec![one.to_string()],
            DeValue::Array(list) => {
                let texts = list.iter().map(|one| text(one).map(str::to_owned));
                texts.collect::<Result<_, _>>()?
            }
            _ => {
                return Err((
                    value.span().start,
                    not("a string, or a list of them", value),
                ));
            }
        };
        rule.set(key.get_ref(), &items)
            .map_err(|why| (value.span().start, format!("{}: {why}", key.get_ref())))?;
    }
    Ok(rule)
}

/// What can be told only when all of it is known.
fn check_policy(policy: &policy::Settings, root: &DeTable<'_>) -> Result<(), Fault> {
    if policy.file.is_some() {
        return match policy.rules.first() {
            None => Ok(()),
            Some(_) => Err((
                place(root, "file"),
                "policy.file: it takes the place of the rules here; put them there, or leave it out".to_owned(),
            )),
        };
    }
    check_rules(policy, policy.profile)
}

fn check_rules(policy: &policy::Settings, profile: Profile) -> Result<(), Fault> {
    for rule in &policy.rules {
        rule.check(profile)
            .map_err(|why| (rule.line, format!("policy.{}: {why}", rule.title())))?;
    }
    Ok(())
}

/// What an entry of `schedule.set` would hold. A date is nothing that it may hold.
fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().into(),
        DeValue::Float(n) => n.as_str().parse::<f64>().ok().into(),
        DeValue::Boolean(on) => (*on).into(),
        DeValue::Array(list) => list.iter().map(|one| json(one.get_ref())).collect(),
        DeValue::Table(table) => {
            let fields = table.iter();
            fields
                .map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())))
                .collect()
        }
        DeValue::Datetime(date) => serde_json::json!([date.to_string()]),
    }
}

fn text<'a>(value: &'a Spanned<DeValue<'_>>) -> Result<&'a str, Fault> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => Err((value.span().start, not("a string", value))),
    }
}

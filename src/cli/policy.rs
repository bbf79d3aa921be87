//! `triton policy`: what the policy of this device is, and what it would say to a request. Works offline.

use super::{print, printable, read_stdin, status};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::message::payload::FileRequest;
use crate::policy::{Ask, Asked, Rules, Verdict, is_plain, of_entry, quoted, real};
use crate::sys::process;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// Exit code of a refused request.
const REFUSED: u8 = 1;
/// Options with a value, and the field of a payload that they set.
const FIELDS: [(&str, &str); 7] = [
    ("script", "name"),
    ("shell", "shell"),
    ("path", "path"),
    ("user", "user"),
    ("group", "group"),
    ("cwd", "cwd"),
    ("pipe", "pipe"),
];

/// What the command line asks.
#[derive(Debug, Default)]
pub struct Query {
    /// `show`, or `test`, the type, and the words of a command.
    pub words: Vec<String>,
    fields: Map<String, Value>,
    message: Option<PathBuf>,
}

impl Query {
    /// Whether this option has a value.
    pub fn has(name: &str) -> bool {
        name == "message" || name == "env" || FIELDS.iter().any(|(option, _)| *option == name)
    }

    /// Takes an option.
    pub fn set(&mut self, name: &str, value: &str) -> std::result::Result<(), String> {
        if name == "message" {
            self.message = Some(value.into());
        } else if name == "env" {
            let (name, value) = value.split_once('=').ok_or("--env takes NAME=VALUE")?;
            self.fields.entry("env").or_insert_with(|| json!({}))[name] = value.into();
        } else if let Some((_, field)) = FIELDS.iter().find(|(option, _)| *option == name) {
            self.fields.insert((*field).to_owned(), value.into());
        }
        Ok(())
    }

    /// `--stdin`.
    pub fn brings_stdin(&mut self) {
        self.fields.insert("stdin".to_owned(), "".into());
    }

    /// Checks what was given.
    pub fn check(self) -> std::result::Result<Self, String> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let plain = self.fields.is_empty() && self.message.is_none();
        match words[..] {
            ["show"] if plain => Ok(self),
            ["test"] if self.message.is_some() && self.fields.is_empty() => Ok(self),
            ["test", _, ..] if self.message.is_none() || plain || self.fields.is_empty() => {
                Ok(self)
            }
            _ => Err("policy takes show, or test TYPE with what the request has".to_owned()),
        }
    }

    pub fn run(&self, config: &Config, json: bool) -> Result<u8> {
        let rules = Rules::new(config, &process::program());
        if self.words[0] == "show" {
            show(&rules, status::ask(config).ok().as_ref(), json);
            return Ok(0);
        }
        self.test(&rules, json)
    }

    /// The message that would come.
    fn message(&self) -> Result<Message> {
        let kind = self.words.get(1).map(String::as_str);
        let Some(path) = &self.message else {
            let mut fields = self.fields.clone();
            if let Some(argv) = self.words.get(2..).filter(|argv| !argv.is_empty()) {
                fields.insert("argv".to_owned(), argv.into());
            }
            return Ok(Message::with(kind.unwrap_or_default(), &fields));
        };
        let limit = crate::message::DEFAULT_LIMIT;
        let bytes = if path.as_os_str() == "-" {
            read_stdin(limit as u64, "no message is")?
        } else {
            fs::read(path).map_err(|e| Error::at("read the message", path, e))?
        };
        // A whole message, or its payload.
        match (Message::decode(&bytes, limit), kind) {
            (Ok(message), None) => Ok(message),
            (Ok(message), Some(kind)) if message.kind == kind => Ok(message),
            (_, Some(kind)) => {
                let payload = String::from_utf8(bytes)
                    .map_err(|e| Error::because("the message is no text", e))?;
                Ok(Message {
                    payload: Some(payload),
                    ..Message::new(kind)
                })
            }
            (Err(e), None) => Err(Error::because(
                "this is no whole message; name its TYPE where it is a payload",
                e,
            )),
        }
    }

    fn test(&self, rules: &Rules, json: bool) -> Result<u8> {
        let message = self.message()?;
        let asked = Asked::read(&message, rules.pipe()).map_err(|e| {
            Error::because(
                format!("the agent would answer {} with invalid", message.kind),
                e,
            )
        })?;
        let mut report = Report::default();
        report.judge(rules, "the request", &asked.ask());
        // Where it leads, as the job will ask.
        if let Some(path) = asked.ask().path.filter(|path| is_plain(path)) {
            let follow = message
                .read::<FileRequest>()
                .is_ok_and(|request| request.follow);
            let place = match (path.parent(), path.file_name()) {
                (Some(folder), Some(name)) if !follow => real(folder).join(name),
                _ => real(path),
            };
            if place != path {
                let ask = Ask {
                    path: Some(&place),
                    real: true,
                    ..asked.ask()
                };
                report.judge(rules, &format!("where it leads, {}", place.display()), &ask);
            }
        }
        for (at, entry) in asked.entries().iter().enumerate() {
            let what = format!("entry {} ({})", at + 1, entry.name);
            report.judge(rules, &what, &of_entry(entry));
        }
        if json {
            print(&format!(
                "{:#}\n",
                json!({ "allowed": report.allowed(), "decisions": report.decisions })
            ));
        } else {
            print(&report.text);
        }
        Ok(if report.allowed() { 0 } else { REFUSED })
    }
}

/// What was decided, step by step.
#[derive(Default)]
struct Report {
    text: String,
    decisions: Vec<Value>,
}

impl Report {
    fn allowed(&self) -> bool {
        self.decisions
            .iter()
            .all(|decision| decision["allowed"] == true)
    }

    fn judge(&mut self, rules: &Rules, what: &str, ask: &Ask<'_>) {
        let mut others = Vec::new();
        let verdict = rules.judge(ask, &mut |rule, fits| {
            if let Err(why) = fits {
                others.push((rule.title(), rules.place(rule.line), why));
            }
        });
        let Verdict {
            allowed,
            rule,
            line,
            why,
        } = verdict;
        let place = line.map(|line| rules.place(line));
        let verb = if allowed { "allowed" } else { "refused" };
        let at = place
            .as_ref()
            .map(|place| format!(" ({place})"))
            .unwrap_or_default();
        let _ = writeln!(
            self.text,
            "{verb}: {} {}, by {rule}{at}: {}",
            ask.kind,
            printable(what),
            printable(&why)
        );
        let compared = ask.run.and_then(|run| run.argv.as_deref()).map(quoted);
        if let Some(compared) = &compared {
            let _ = writeln!(self.text, "  compared as    {}", printable(compared));
        }
        for (title, place, why) in &others {
            let _ = writeln!(
                self.text,
                "  does not fit   {title} ({place}): {}",
                printable(why)
            );
        }
        let others: Vec<Value> = others
            .iter()
            .map(|(title, place, why)| json!({ "rule": title, "place": place, "why": why }))
            .collect();
        self.decisions.push(json!({
            "what": what,
            "type": ask.kind,
            "allowed": allowed,
            "rule": rule,
            "place": place,
            "why": why,
            "comparedAs": compared,
            "doNotFit": others,
        }));
    }
}

/// `status` is the running agent's.
fn show(rules: &Rules, status: Option<&Value>, json: bool) {
    let settings = rules.settings();
    let counts = status.map(|status| &status["policy"]);
    let count = |name: &str, action: &str| {
        let mut list = counts?["rules"].as_array()?.iter();
        list.find(|r| r["name"] == name && r["action"] == action)?["refused"].as_u64()
    };
    let mut text = format!("profile   {}\n", settings.profile.as_str());
    if let Some(file) = &settings.file {
        let _ = writeln!(text, "file      {}", file.display());
    }
    let mut list = Vec::new();
    for rule in &settings.rules {
        let refused = count(&rule.name, rule.action.as_str());
        let times = match refused {
            Some(times @ 1..) => format!(", refused {times}"),
            _ => String::new(),
        };
        let _ = writeln!(text, "{} ({}){times}", rule.title(), rules.place(rule.line));
        let mut conditions = Map::new();
        for (condition, items) in rule.items() {
            let _ = writeln!(text, "  {condition:<8}{}", items.join("  "));
            conditions.insert(condition.to_owned(), items.into());
        }
        list.push(json!({
            "name": rule.name,
            "action": rule.action.as_str(),
            "place": rules.place(rule.line),
            "conditions": conditions,
            "refused": refused,
        }));
    }
    let refused = counts.and_then(|counts| counts["refused"].as_u64());
    let _ = match refused {
        Some(refused) => writeln!(text, "refused   {refused} since the agent's start"),
        None => writeln!(text, "refused   not known: the agent does not run"),
    };
    if json {
        let shown = json!({
            "profile": settings.profile.as_str(),
            "file": settings.file,
            "rules": list,
            "refused": refused,
        });
        print(&format!("{shown:#}\n"));
    } else {
        print(&text);
    }
}

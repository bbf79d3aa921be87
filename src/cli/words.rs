//! The commands that take a few words and options with a value: one table tells what.

use super::{event, exec, get, history, jobs, module, put, script, trust, unexpected};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::message::payload;
use crate::sys::poll::after;
use serde_json::{Value, json};
use std::time::Duration;

/// How long the daemon may take to answer what it answers at once.
const PATIENCE: Duration = Duration::from_secs(30);
/// `triton script run`, which takes what `exec` takes.
pub const SCRIPT_RUN: &str = "script run";
#[allow(missing_docs)]
pub const SCRIPT_LS: &str = "script ls";
#[allow(missing_docs)]
pub const METRIC: &str = "metric";

/// What a command takes.
struct Shape {
    name: &'static str,
    least: usize,
    most: usize,
    /// Options with a value.
    options: &'static [&'static str],
    /// The words, for who gave others.
    takes: &'static str,
}

const SHAPES: &[Shape] = &[
    shape("script", (1, 0), &[], "ls or run"),
    shape(SCRIPT_LS, (0, 0), &[], "nothing"),
    shape("progress", (1, usize::MAX), &["job"], "PERCENT [TEXT]"),
    shape("get", (1, 1), &["to"], "NAME"),
    shape("agent", (1, 1), &["delay"], "reload, restart or exit"),
    shape("system", (1, 1), &["delay"], "reboot or shutdown"),
    shape("engine", (1, 1), &["pipe"], "COMMAND"),
    shape("jobs", (0, 0), &[], "nothing"),
    shape("cancel", (1, 1), &["grace"], "TOKEN"),
    shape(
        "trust",
        (0, 2),
        &[],
        "show, accept [KEY|KEYID], reset or rotate",
    ),
    shape(
        "module",
        (1, 3),
        &[],
        "ls, kill NAME, start NAME, or ask TYPE [JSON]",
    ),
    shape("event", (0, usize::MAX), event::OPTIONS, "LINE"),
    shape(METRIC, (1, 2), &["ttl", "unit"], "NAME VALUE"),
];

const fn shape(
    name: &'static str,
    (least, most): (usize, usize),
    options: &'static [&'static str],
    takes: &'static str,
) -> Shape {
    Shape {
        name,
        least,
        most,
        options,
        takes,
    }
}

fn of(command: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.name == command)
}

/// Whether a command takes this option.
pub fn takes(command: &str, option: &str) -> bool {
    of(command).is_some_and(|shape| shape.options.contains(&option))
}

/// Whether a command that has so many words takes one more.
pub fn has_room(command: &str, words: usize) -> bool {
    of(command).is_some_and(|shape| words < shape.most)
}

/// Such a command.
#[derive(Debug, Default)]
pub struct Words {
    pub name: &'static str,
    pub list: Vec<String>,
    pub options: Vec<(String, String)>,
    json: bool,
}

impl Words {
    /// Checks what was given to `command`.
    pub fn of(self, command: &str, json: bool) -> Result<Self, String> {
        let shape = of(command).ok_or_else(|| format!("{command:?} is no command"))?;
        let words = Self {
            name: shape.name,
            json,
            ..self
        };
        let wrong = || format!("{command} takes {}", shape.takes);
        if words.list.len() < shape.least {
            return Err(wrong());
        }
        let is_time = |text: &str| text.parse().is_ok_and(|s: f64| s >= 0.0 && s.is_finite());
        for option in ["delay", "grace"] {
            if words.option(option).is_some_and(|time| !is_time(time)) {
                return Err(format!("--{option} takes a number of seconds"));
            }
        }
        if shape.name == "module" && !module::is_sound(&words.list) {
            return Err(wrong());
        }
        if matches!(shape.name, "agent" | "system") && words.act().is_none() {
            return Err(wrong());
        }
        if shape.name == "trust" && !trust::is_act(words.word(), words.list.len()) {
            return Err(wrong());
        }
        Ok(words)
    }

    /// As for `exec`, where a job comes of it.
    pub fn failure_code(&self) -> u8 {
        match self.name {
            "agent" | "system" | "engine" => exec::OWN_FAILURE,
            "module" if self.word() == "ask" => exec::OWN_FAILURE,
            _ => 1,
        }
    }

    fn word(&self) -> &str {
        self.list.first().map(String::as_str).unwrap_or_default()
    }

    pub fn option(&self, name: &str) -> Option<&str> {
        let given = self.options.iter().rev().find(|(option, _)| option == name);
        given.map(|(_, value)| value.as_str())
    }

    /// An option that was found to be a time.
    fn seconds(&self, name: &str) -> Option<f64> {
        self.option(name).and_then(|time| time.parse().ok())
    }

    /// The type of an act.
    fn act(&self) -> Option<&'static str> {
        let name = format!("{}.{}", self.name, self.word());
        let known = crate::acts::ACTS.iter().map(|(kind, _)| *kind);
        known.into_iter().find(|kind| *kind == name)
    }

    pub fn run(&self, config: &Config) -> Result<u8> {
        match self.name {
            "progress" => self.progress(config),
            "trust" => trust::run(
                config,
                self.word(),
                self.list.get(1).map(String::as_str),
                self.json,
            ),
            "event" => event::run(config, self),
            METRIC => event::metric(config, self),
            "get" => get::run(config, self.word(), self.option("to")),
            "engine" => {
                let mut request = json!({ "command": self.word() });
                if let Some(pipe) = self.option("pipe") {
                    let pipe = std::path::absolute(pipe)
                        .map_err(|e| Error::because("--pipe takes a path", e))?;
                    request["pipe"] = json!(pipe.to_string_lossy());
                }
                job(config, payload::ENGINE_COMMAND, &request)
            }
            "module" => module::run(config, &self.list, self.json),
            "jobs" => jobs::list(config, self.json),
            "cancel" => jobs::cancel(config, self.word(), self.seconds("grace")),
            "agent" | "system" => {
                let request = json!({ "delaySeconds": self.seconds("delay") });
                job(config, self.act().unwrap_or_default(), &request)
            }
            _ => script::list(config, self.json),
        }
    }

    fn progress(&self, config: &Config) -> Result<u8> {
        let job = self.option("job").map(str::to_owned).or_else(put::job);
        let job = job.ok_or_else(|| {
            Error::new(
                "no job: 'triton progress' works within a job of the agent, which has its token in TRITON_JOB; \
                 elsewhere name one with --job",
            )
        })?;
        let percent = self.word().trim_end_matches('%');
        let percent: f64 = percent
            .parse()
            .map_err(|_| Error::new("PERCENT is a number from 0 to 100"))?;
        let text = self.list.get(1..).unwrap_or_default().join(" ");
        let said = json!({ "job": job, "percent": percent, "message": text });
        let request = Message::with(payload::PROGRESS, &said);
        let answer = exec::connect(config)?.ask(&request, after(PATIENCE))?;
        match answer.kind.as_str() {
            payload::RESULT => Ok(0),
            payload::ERROR => Err(history::refusal(&answer)),
            other => Err(unexpected(other)),
        }
    }
}

fn job(config: &Config, kind: &str, request: &Value) -> Result<u8> {
    exec::follow(&mut exec::connect(config)?, &Message::with(kind, request))
}

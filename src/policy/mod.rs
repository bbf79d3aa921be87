//! The policy of this device: what Poseidon may ask for (`docs/policy.md`).
//!
//! ```text
//! message ─ Ask (read by the plugins' types) ─ own files? ─ deny? ─ profile? ─ allow? ─ plugin
//! run of an entry that Poseidon has set ─ Ask ┘
//! open folder or file of a job ─ Ask ┘
//! ```
//!
//! It is asked when a request comes, without looking at the disk: the link waits for it. Where a path leads is asked by
//! the job itself, of the folder that it has open, so that nothing can be exchanged meanwhile.

mod ask;
mod pattern;
mod place;
mod profile;
mod rule;
mod settings;
#[cfg(test)]
mod tests;

pub use ask::{Ask, Asked, of_entry};
pub use pattern::quoted;
pub use place::{is_plain, real};
pub use profile::{Profile, is_subject};
pub use rule::{Action, CONDITIONS, Rule};
pub use settings::Settings;

use crate::config::Config;
use crate::dispatch::Guard;
use crate::job::{Gate, Origin, Pool, Work};
use crate::message::Message;
use crate::message::payload::{self, ErrorCode};
use crate::plugin::Peer;
use crate::schedule::Entry;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Refusals are said in the log so often at most; the others are counted.
const LOG_PAUSE: Duration = Duration::from_secs(1);
/// Where the package for `OpenWrt` has the settings from which it makes the configuration.
const UCI: &str = "/etc/config/triton";
/// Where the kernel has what belongs to this process: its environment may hold a proxy's password.
const SELF: [&str; 2] = ["/proc/self", "/proc/thread-self"];

/// The rules in force, with what they are about besides.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    settings: Settings,
    /// The agent's own files: who may write them may do anything, and they hold secrets.
    own: Vec<PathBuf>,
    /// Where the lines of `engine.command` go that name no pipe.
    pipe: Option<PathBuf>,
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    #[allow(missing_docs)]
    pub allowed: bool,
    /// What decided: `deny.NAME`, `allow.NAME`, `profile NAME`, or what there is without a rule.
    pub rule: String,
    /// Its file and line, where it is a rule of the configuration.
    pub line: Option<usize>,
    /// In words.
    pub why: String,
}

impl Verdict {
    fn new(allowed: bool, rule: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            allowed,
            rule: rule.into(),
            line: None,
            why: why.into(),
        }
    }

    fn of(rule: &Rule) -> Self {
        let verb = match rule.action {
            Action::Allow => "allows",
            Action::Deny => "denies",
        };
        Self {
            line: Some(rule.line),
            ..Self::new(
                rule.action == Action::Allow,
                rule.title(),
                format!("the rule {verb} it"),
            )
        }
    }
}

impl Rules {
    /// Those of a configuration, for the agent whose program this is.
    pub fn new(config: &Config, program: &Path) -> Self {
        let mut own = vec![
            config.state.clone(),
            config.journal_folder(),
            config.socket.clone(),
            program.to_owned(),
            PathBuf::from(UCI),
            config.plugins.folder.clone(),
        ];
        own.extend(SELF.map(PathBuf::from));
        own.extend(config.tls.ca_file.clone());
        own.extend(config.identifier_file.clone());
        own.extend(own_files(&config.policy));
        Self {
            settings: config.policy.clone(),
            own,
            pipe: config.engine.pipe.clone(),
        }
    }

    /// What the configuration says.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The pipe of the configuration.
    pub fn pipe(&self) -> Option<&Path> {
        self.pipe.as_deref()
    }

    /// A line of the file that has the rules.
    pub fn place(&self, line: usize) -> String {
        self.settings.place(line)
    }

    /// Whether anything depends on a path.
    fn asks_for_paths(&self) -> bool {
        !self.settings.is_open()
    }

    /// Decides. `trace` hears of each rule that was asked, and why it does not fit.
    pub fn judge(
        &self,
        ask: &Ask<'_>,
        trace: &mut dyn FnMut(&Rule, Result<(), String>),
    ) -> Verdict {
        if self.settings.is_open() {
            return Verdict::new(true, "profile open", "there is no policy");
        }
        if !is_subject(ask.kind) {
            return Verdict::new(true, "protocol", "it answers, or belongs to the connection");
        }
        if let Some(own) = self.own_file(ask) {
            let why = format!(
                "{} is the agent's own: it decides what the agent does, or is secret",
                own.display()
            );
            return Verdict::new(false, "own-files", why);
        }
        let mut first = |action| {
            self.settings
                .rules
                .iter()
                .filter(|rule| rule.action == action)
                .find(|rule| {
                    let fits = rule.fits(ask);
                    let found = fits.is_ok();
                    trace(rule, fits);
                    found
                })
        };
        if let Some(rule) = first(Action::Deny) {
            return Verdict::of(rule);
        }
        let allow = first(Action::Allow);
        let profile = self.settings.profile;
        if let Some(why) = profile.refuses(ask, allow.is_some_and(Rule::has_paths)) {
            return Verdict::new(false, format!("profile {}", profile.as_str()), why);
        }
        match allow {
            Some(rule) => Verdict::of(rule),
            None if profile::is_read(ask.kind) => {
                Verdict::new(true, "reads", "it only reads, and no rule denies it")
            }
            None if self.settings.has_allows() => Verdict::new(
                false,
                "allow",
                "no allow rule fits it, and where there are some all else is denied",
            ),
            None => Verdict::new(
                true,
                format!("profile {}", profile.as_str()),
                "no rule denies it, and there are no allow rules",
            ),
        }
    }

    fn refusal(&self, ask: &Ask<'_>, entry: &str) -> Option<Refusal> {
        let verdict = self.judge(ask, &mut |_, _| {});
        (!verdict.allowed).then(|| Refusal {
            what: named(ask),
            entry: entry.to_owned(),
            verdict,
        })
    }

    fn own_file<'a>(&'a self, ask: &Ask<'a>) -> Option<&'a Path> {
        let path = ask.path?;
        if place::is_of_this_process(path) {
            return Some(path);
        }
        let concerns = |own: &Path| place::concerns(own, path, ask.is_tree());
        let mut own = self.own.iter().map(PathBuf::as_path);
        own.find(|own| concerns(own) || ask.real && concerns(&real(own)))
    }
}

/// A request that is not let through.
struct Refusal {
    what: String,
    /// Which entry of a schedule it is about.
    entry: String,
    verdict: Verdict,
}

/// The files that say what the policy is.
fn own_files(settings: &Settings) -> impl Iterator<Item = PathBuf> {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    settings.sources.iter().map(absolute)
}

#[derive(Debug, Default)]
struct State {
    rules: Arc<Rules>,
    refused: u32,
    /// By the name of what refused. Those of rules that are gone go too.
    counts: Vec<(String, u32)>,
    logged: Option<Instant>,
    /// Refusals that the log does not have.
    silent: u32,
}

/// The policy in force.
#[derive(Debug, Default)]
pub struct Policy(Mutex<State>);

impl Policy {
    /// By these rules.
    pub fn new(rules: Rules) -> Self {
        Self(Mutex::new(State {
            rules: Arc::new(rules),
            ..State::default()
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.state().rules)
    }

    /// Puts what was read anew in force. What belongs to the agent stays: that changes at its next start.
    pub fn replace(&self, settings: Settings) {
        let mut state = self.state();
        let mut rules = (*state.rules).clone();
        rules.own.extend(own_files(&settings));
        rules.own.sort();
        rules.own.dedup();
        rules.settings = settings;
        let titles: Vec<String> = rules.settings.rules.iter().map(Rule::title).collect();
        state.counts.retain(|(name, _)| titles.contains(name));
        state.rules = Arc::new(rules);
    }

    /// Counts and logs a refusal, and says it in an answer.
    fn refuse(&self, refusal: &Refusal) -> payload::Error {
        let Refusal {
            what,
            entry,
            verdict,
        } = refusal;
        let rule = &verdict.rule;
        let mut state = self.state();
        state.refused = state.refused.saturating_add(1);
        match state.counts.iter_mut().find(|(name, _)| name == rule) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => state.counts.push((rule.clone(), 1)),
        }
        let now = Instant::now();
        let pause = |last| now.saturating_duration_since(last) < LOG_PAUSE;
        let silent = state.logged.is_some_and(pause);
        let mut more = 0;
        if silent {
            state.silent = state.silent.saturating_add(1);
        } else {
            state.logged = Some(now);
            more = std::mem::take(&mut state.silent);
        }
        let place = verdict
            .line
            .map(|line| format!(" ({})", state.rules.place(line)));
        drop(state);
        let text = format!("refused by this device's policy, {rule}: {}", verdict.why);
        if !silent {
            let place = place.unwrap_or_default();
            let more = match more {
                0 => String::new(),
                more => format!("; {more} others were refused since the last such line"),
            };
            log::warn!("{what}{entry} was {text}{place}{more}");
        }
        let entry = if entry.is_empty() {
            String::new()
        } else {
            format!("{}: ", entry.trim())
        };
        let mut error = payload::Error::new(ErrorCode::Refused, entry + &text);
        error.detail = Some(json!({ "policy": rule }));
        error
    }

    fn check(&self, ask: &Ask<'_>) -> Result<(), payload::Error> {
        match self.rules().refusal(ask, "") {
            Some(refusal) => Err(self.refuse(&refusal)),
            None => Ok(()),
        }
    }

    /// Whether a run of an entry that Poseidon has set may begin.
    pub fn check_run(&self, entry: &Entry) -> Result<(), payload::Error> {
        self.check(&of_entry(entry))
    }

    /// What speaks against a message of Poseidon's.
    fn refusal(&self, message: &Message) -> Option<Refusal> {
        let rules = self.rules();
        if rules.settings.is_open() || !is_subject(&message.kind) {
            return None;
        }
        // What cannot be read is for the plugin to refuse; unless its type alone is too much.
        let asked = Asked::read(message, rules.pipe());
        let asked = asked.unwrap_or_else(|_| Asked::unread(&message.kind));
        let mut entries = asked.entries().iter().enumerate();
        rules.refusal(&asked.ask(), "").or_else(|| {
            entries.find_map(|(at, entry)| {
                rules.refusal(
                    &of_entry(entry),
                    &format!(" entry {} ({})", at + 1, entry.name),
                )
            })
        })
    }

    /// For `agent.status`.
    pub fn report(&self) -> Value {
        let state = self.state();
        let settings = &state.rules.settings;
        let count = |name: &str| {
            state
                .counts
                .iter()
                .find(|(n, _)| n == name)
                .map_or(0, |(_, count)| *count)
        };
        let rules = settings.rules.iter();
        let rules = rules.map(|rule| json!({ "name": rule.name, "action": rule.action.as_str(), "refused": count(&rule.title()) }));
        json!({
            "profile": settings.profile.as_str(),
            "refused": state.refused,
            "rules": rules.collect::<Vec<_>>(),
        })
    }
}

/// What was asked for, without arguments: they may hold secrets.
fn named(ask: &Ask<'_>) -> String {
    let argv = ask.run.and_then(|run| run.argv.as_ref()?.first());
    let what = match (ask.script, argv, ask.path) {
        (Some(script), ..) => script.to_owned(),
        (_, Some(program), _) => program.clone(),
        (.., Some(path)) => path.display().to_string(),
        _ => return ask.kind.chars().take(64).collect(),
    };
    let what: String = what.chars().take(200).collect();
    format!("{} {what:?}", ask.kind)
}

impl Gate for Policy {
    fn path(&self, kind: &str, path: &Path) -> Result<(), payload::Error> {
        self.check(&Ask {
            kind,
            path: Some(path),
            real: true,
            ..Ask::default()
        })
    }

    fn asks_for_paths(&self) -> bool {
        self.rules().asks_for_paths()
    }
}

/// Answers what the policy does not let through.
pub struct Door {
    policy: Arc<Policy>,
    pool: Arc<Pool>,
}

impl Door {
    /// In front of the plugins; `pool` knows what has run.
    pub fn new(policy: Arc<Policy>, pool: Arc<Pool>) -> Self {
        Self { policy, pool }
    }
}

impl Guard for Door {
    fn lets_pass(&self, message: &Message, from: &Peer) -> bool {
        if from.origin != Origin::Poseidon {
            return true;
        }
        let Some(refusal) = self.policy.refusal(message) else {
            return true;
        };
        // A token that is known starts nothing, whatever the rules are by now: Poseidon asks what became of it.
        if self.pool.knows(&message.id) {
            let gone =
                payload::Error::new(ErrorCode::NotFound, "the journal has forgotten this job");
            self.pool.submit(from.request(message, Work::Refused(gone)));
            return false;
        }
        let error = self.policy.refuse(&refusal);
        from.outbox.push(message.reply(payload::ERROR, &error));
        false
    }
}

//! What the configuration says.

use super::profile::Profile;
use super::rule::{Action, RULES, Rule};
use std::path::PathBuf;

/// `[policy]`.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    #[allow(missing_docs)]
    pub profile: Profile,
    /// A file that has the rules in place of the configuration.
    pub file: Option<PathBuf>,
    /// In the order of their names.
    pub rules: Vec<Rule>,
    /// Whether the profile was named.
    pub named: bool,
    /// The configuration that this is from, and the file of the policy, if there is one.
    pub sources: Vec<PathBuf>,
}

impl Settings {
    /// Sets the profile by its name.
    pub fn set_profile(&mut self, name: &str) -> Result<(), String> {
        let known = Profile::ALL;
        let Some(profile) = known.into_iter().find(|profile| profile.as_str() == name) else {
            return Err(format!(
                "expected one of {}",
                known.map(Profile::as_str).join(", ")
            ));
        };
        self.profile = profile;
        self.named = true;
        Ok(())
    }

    /// Adds a rule.
    pub fn add(&mut self, rule: Rule) -> Result<(), String> {
        if self.rules.len() >= RULES {
            return Err(format!("expected at most {RULES} rules"));
        }
        self.rules.push(rule);
        Ok(())
    }

    /// Takes over what a file says, which has a profile only where there is none yet.
    pub fn take(&mut self, read: Self, file: PathBuf) {
        if read.named {
            self.profile = read.profile;
            self.named = true;
        }
        self.rules = read.rules;
        self.sources.push(file);
    }

    /// A line of the file that has the rules.
    pub fn place(&self, line: usize) -> String {
        let file = self.sources.last();
        format!(
            "{}:{line}",
            file.map(|f| f.display().to_string()).unwrap_or_default()
        )
    }

    /// Says in the log what may be a mistake.
    pub fn warn(&self) {
        for rule in &self.rules {
            for doubt in rule.doubts() {
                let (place, title) = (self.place(rule.line), rule.title());
                log::warn!("{place}: policy.{title}: {doubt}");
            }
        }
    }

    /// Whether it lets everything through.
    pub fn is_open(&self) -> bool {
        self.profile == Profile::Open && self.rules.is_empty()
    }

    /// Whether there is a rule that allows something: then nothing else is.
    pub fn has_allows(&self) -> bool {
        self.rules.iter().any(|rule| rule.action == Action::Allow)
    }
}

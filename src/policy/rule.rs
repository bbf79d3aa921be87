//! A rule: what it says in the configuration, and whether a request fits it.

use super::ask::Ask;
use super::pattern::{self, Found, Pattern, quoted};
use super::place;
use super::profile::{self, Profile};
use crate::message::payload::{
    COMMAND, Command, DIRECTORY_PUT, ENGINE_COMMAND, FILE_GET, FILE_LIST, FILE_PUT, SCRIPT,
};
use crate::sys::user;
use std::path::{Path, PathBuf};

/// Most rules of a configuration, and most items of one list.
pub const RULES: usize = 128;
const ITEMS: usize = 64;
/// Longest name.
const NAME_LIMIT: usize = 64;

/// What comes of a request that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Action {
    Allow,
    Deny,
}

impl Action {
    /// As in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A rule. All of its conditions must hold; of a list, one item.
#[derive(Debug, Clone)]
pub struct Rule {
    #[allow(missing_docs)]
    pub action: Action,
    /// Its name, which is unique among those of its action.
    pub name: String,
    /// Its line in the file.
    pub line: usize,
    types: Vec<Pattern>,
    scripts: Vec<Pattern>,
    commands: Vec<Pattern>,
    shells: Vec<Pattern>,
    paths: Vec<PathBuf>,
    users: Vec<String>,
    env: Vec<Pattern>,
    with: Vec<String>,
}

/// The conditions, as the configuration has them.
pub const CONDITIONS: [&str; 8] = [
    "type", "script", "command", "shell", "path", "user", "env", "with",
];
/// What a request may bring besides, by `with`.
const BRINGS: [&str; 3] = ["stdin", "cwd", "group"];

fn patterns(items: &[String]) -> Result<Vec<Pattern>, String> {
    items.iter().map(|item| Pattern::new(item)).collect()
}

fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|p| p.matches(text) == Found::Yes)
}

impl Rule {
    /// A rule without conditions.
    pub fn new(action: Action, name: &str) -> Result<Self, String> {
        let right = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !(1..=NAME_LIMIT).contains(&name.len()) || !name.bytes().all(right) {
            return Err(format!(
                "the name of a rule has 1 to {NAME_LIMIT} letters, digits, '.', '_' and '-'"
            ));
        }
        Ok(Self {
            action,
            name: name.to_owned(),
            line: 0,
            types: Vec::new(),
            scripts: Vec::new(),
            commands: Vec::new(),
            shells: Vec::new(),
            paths: Vec::new(),
            users: Vec::new(),
            env: Vec::new(),
            with: Vec::new(),
        })
    }

    /// `deny.NAME`.
    pub fn title(&self) -> String {
        format!("{}.{}", self.action.as_str(), self.name)
    }

    /// Sets one of [`CONDITIONS`].
    pub fn set(&mut self, condition: &str, items: &[String]) -> Result<(), String> {
        if items.is_empty() {
            return Err("an empty list fits nothing; leave it out, or name something".to_owned());
        }
        if items.len() > ITEMS {
            return Err(format!("expected at most {ITEMS} items"));
        }
        match condition {
            "type" => {
                self.types = patterns(items)?;
                self.types.iter().try_for_each(check_type)
            }
            "script" => {
                self.scripts = patterns(items)?;
                items.iter().try_for_each(|item| check_script(item))
            }
            "command" => {
                self.commands = patterns(items)?;
                items.iter().try_for_each(|item| check_command(item))
            }
            "shell" => {
                self.shells = patterns(items)?;
                Ok(())
            }
            "path" => {
                let paths = items.iter().map(|item| path(item));
                self.paths = paths.collect::<Result<_, _>>()?;
                Ok(())
            }
            "user" => {
                items.iter().try_for_each(|item| check_user(item))?;
                self.users = items.to_vec();
                Ok(())
            }
            "env" => {
                self.env = patterns(items)?;
                match items.iter().find(|item| item.contains('=')) {
                    Some(item) => Err(format!("{item:?} names no variable: no name has a `=`")),
                    None => Ok(()),
                }
            }
            "with" => {
                if let Some(item) = items.iter().find(|i| !BRINGS.contains(&i.as_str())) {
                    let known = BRINGS.join(", ");
                    return Err(format!("{item:?} is none of {known}"));
                }
                self.with = items.to_vec();
                Ok(())
            }
            other => Err(format!("`{other}` is no condition")),
        }
    }

    /// Whether it can fit anything, all conditions together, in this profile.
    pub fn check(&self, profile: Profile) -> Result<(), String> {
        let is_empty = self.conditions().next().is_none();
        if is_empty || self.action == Action::Allow && self.conditions().all(|c| c == "with") {
            let known = CONDITIONS.join(", ");
            return Err(format!("a rule without a condition; there are {known}"));
        }
        if !self.commands.is_empty() && !self.shells.is_empty() {
            return Err(
                "a request has a command or a shell text, never both: make two rules".to_owned(),
            );
        }
        let fits = |kind: &&str| self.has_type(kind) && self.conditions().all(|c| applies(c, kind));
        let mut kinds: Vec<&str> = profile::kinds().filter(fits).collect();
        let only_types = self.conditions().all(|c| c == "type");
        if kinds.is_empty() && !only_types {
            let named: Vec<&str> = self.conditions().collect();
            return Err(format!(
                "can fit nothing: no one message type has all of {}",
                named.join(", ")
            ));
        }
        let files =
            |kind: &str| profile != Profile::ReadOnly || profile::is_read(kind) || self.has_paths();
        kinds.retain(|kind| profile.has(kind) && files(kind));
        if self.action == Action::Allow && kinds.is_empty() && profile != Profile::Open {
            return Err(format!(
                "can allow nothing: the profile {} lets none of that through, and rules only narrow it down",
                profile.as_str()
            ));
        }
        Ok(())
    }

    /// What may be a mistake in it, or may not: a plugin's type, a user who comes later.
    pub fn doubts(&self) -> impl Iterator<Item = String> {
        let types = self.types.iter().filter(|kind| !is_known(kind));
        let types = types.map(|kind| {
            let kind = kind.as_str();
            format!("no message of the agent's has the type {kind:?}: only a plugin of one's own could have it")
        });
        let users = self.users.iter().filter_map(|name| user::uid(name).err());
        types.chain(users.map(|why| why.to_string()))
    }

    /// Its conditions as they stand in the configuration.
    pub fn items(&self) -> Vec<(&'static str, Vec<String>)> {
        let texts = |list: &[Pattern]| list.iter().map(|p| p.as_str().to_owned()).collect();
        let paths = self.paths.iter().map(|p| p.display().to_string());
        let items: [Vec<String>; 8] = [
            texts(&self.types),
            texts(&self.scripts),
            texts(&self.commands),
            texts(&self.shells),
            paths.collect(),
            self.users.clone(),
            texts(&self.env),
            self.with.clone(),
        ];
        let all = CONDITIONS.into_iter().zip(items);
        all.filter(|(_, items)| !items.is_empty()).collect()
    }

    /// The conditions that it has.
    fn conditions(&self) -> impl Iterator<Item = &'static str> {
        let has = [
            !self.types.is_empty(),
            !self.scripts.is_empty(),
            !self.commands.is_empty(),
            !self.shells.is_empty(),
            !self.paths.is_empty(),
            !self.users.is_empty(),
            !self.env.is_empty(),
            !self.with.is_empty(),
        ];
        CONDITIONS
            .into_iter()
            .zip(has)
            .filter_map(|(name, has)| has.then_some(name))
    }

    fn has_type(&self, kind: &str) -> bool {
        self.types.is_empty() || any(&self.types, kind)
    }

    /// Whether it says something of paths.
    pub fn has_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Whether a request fits; else which condition does not hold, and why.
    pub fn fits(&self, ask: &Ask<'_>) -> Result<(), String> {
        if !self.has_type(ask.kind) {
            return Err(format!(
                "type: {} is none of {}",
                ask.kind,
                list(&self.types)
            ));
        }
        if !self.scripts.is_empty() {
            match ask.script {
                None => return Err("script: the request names none".to_owned()),
                Some(name) if any(&self.scripts, name) => {}
                Some(name) => {
                    return Err(format!(
                        "script: {name:?} is none of {}",
                        list(&self.scripts)
                    ));
                }
            }
        }
        self.command_fits(ask.run)?;
        if !self.paths.is_empty() {
            self.path_fits(ask)?;
        }
        match self.action {
            Action::Allow => self.may_bring(ask.run),
            Action::Deny => self.brings(ask.run),
        }
    }

    fn command_fits(&self, run: Option<&Command>) -> Result<(), String> {
        if !self.commands.is_empty() {
            let argv = run.and_then(|run| run.argv.as_deref());
            let Some(argv) = argv else {
                return Err("command: the request has no argv".to_owned());
            };
            let found = self.compare(&self.commands, &quoted(argv));
            // Which folder a program lies in is nothing that a deny should be got round by.
            let name = argv.first().and_then(|program| program.rsplit('/').next());
            let by_name = || {
                let mut words = argv.to_vec();
                name.unwrap_or_default().clone_into(&mut words[0]);
                self.compare(&self.commands, &quoted(&words))
            };
            let fits =
                found.is_ok() || self.action == Action::Deny && name.is_some() && by_name().is_ok();
            if !fits {
                return found.map_err(|why| format!("command: {why}"));
            }
        }
        if !self.shells.is_empty() {
            let Some(text) = run.and_then(|run| run.shell.as_deref()) else {
                return Err("shell: the request has no shell text".to_owned());
            };
            self.compare(&self.shells, text)
                .map_err(|why| format!("shell: {why}"))?;
        }
        Ok(())
    }

    /// What is too long to be compared is never allowed, and always denied.
    fn compare(&self, patterns: &[Pattern], text: &str) -> Result<(), String> {
        let found = patterns.iter().map(|pattern| pattern.matches(text));
        for found in found {
            match (found, self.action) {
                (Found::Yes, _) | (Found::TooLong, Action::Deny) => return Ok(()),
                (Found::TooLong, Action::Allow) => return Err("too long to be compared".to_owned()),
                (Found::No, _) => {}
            }
        }
        let text: String = text.chars().take(200).collect();
        Err(format!("{text:?} is none of {}", list(patterns)))
    }

    fn path_fits(&self, ask: &Ask<'_>) -> Result<(), String> {
        let Some(path) = ask.path else {
            return Err("path: the request has none".to_owned());
        };
        if !place::is_plain(path) {
            return Err(format!("path: {} is not plain", path.display()));
        }
        // Only a deny goes for what lies below as well: an allow has to have all of it.
        let tree = ask.is_tree() && self.action == Action::Deny;
        let concerns = |prefix: &Path| place::concerns(prefix, path, tree);
        let found = self
            .paths
            .iter()
            .any(|prefix| concerns(prefix) || ask.real && concerns(&place::real(prefix)));
        if found {
            return Ok(());
        }
        let paths: Vec<String> = self.paths.iter().map(|p| p.display().to_string()).collect();
        Err(format!(
            "path: {} is not below {}",
            path.display(),
            paths.join(", ")
        ))
    }

    /// Of an allow rule: whether what a request brings besides is named in it. A rule that names what runs would else be
    /// got round: a variable, a folder or what it reads may make another thing of the same words.
    fn may_bring(&self, run: Option<&Command>) -> Result<(), String> {
        let Some(run) = run else {
            if self.users.is_empty() && self.env.is_empty() {
                return Ok(());
            }
            return Err("user, env: the request runs nothing".to_owned());
        };
        let is_strict = [&self.scripts, &self.commands, &self.shells]
            .iter()
            .any(|list| !list.is_empty());
        if is_strict || !self.env.is_empty() {
            let stranger = run.env.keys().find(|name| !any(&self.env, name));
            if let Some(name) = stranger {
                return Err(format!("env: the rule does not name the variable {name:?}"));
            }
        }
        let named = |what: &str| self.with.iter().any(|item| item == what);
        if is_strict && let Some(what) = brought(run).find(|what| !named(what)) {
            return Err(format!(
                "with: the rule does not name {what}, which the request brings"
            ));
        }
        if self.users.is_empty() {
            return match &run.user {
                Some(user) if is_strict => {
                    Err(format!("user: the rule names none, and this is {user:?}"))
                }
                _ => Ok(()),
            };
        }
        self.is_user(run)
    }

    /// Of a deny rule: whether a request brings one of those things.
    fn brings(&self, run: Option<&Command>) -> Result<(), String> {
        if self.env.is_empty() && self.with.is_empty() && self.users.is_empty() {
            return Ok(());
        }
        let Some(run) = run else {
            return Err("user, env, with: the request runs nothing".to_owned());
        };
        // What is too long to be compared is denied.
        let denies = |name: &String| self.env.iter().any(|p| p.matches(name) != Found::No);
        if !self.env.is_empty() && !run.env.keys().any(denies) {
            return Err("env: no variable of the request fits".to_owned());
        }
        if !self.with.is_empty() && !brought(run).any(|what| self.with.iter().any(|w| w == what)) {
            return Err("with: the request brings none of it".to_owned());
        }
        if self.users.is_empty() {
            return Ok(());
        }
        self.is_user(run)
    }

    /// By number: several names may be one user, and a number is one too. Without a wish it is the agent's own.
    fn is_user(&self, run: &Command) -> Result<(), String> {
        let own = || Some(user::effective_uid());
        let asked = run.user.as_deref();
        let uid = asked.map_or_else(own, |name| user::uid(name).ok());
        let is =
            |item: &String| asked == Some(item) || uid.is_some() && user::uid(item).ok() == uid;
        if self.users.iter().any(is) {
            return Ok(());
        }
        let asked = asked.unwrap_or("the agent's own user");
        Err(format!(
            "user: {asked} is none of {}",
            self.users.join(", ")
        ))
    }
}

/// What a request brings to what it runs.
fn brought(run: &Command) -> impl Iterator<Item = &'static str> {
    let has = [run.stdin.is_some(), run.cwd.is_some(), run.group.is_some()];
    BRINGS
        .into_iter()
        .zip(has)
        .filter_map(|(name, has)| has.then_some(name))
}

fn list(patterns: &[Pattern]) -> String {
    let texts: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
    texts.join(", ")
}

/// Whether messages of a type have what a condition is about.
fn applies(condition: &str, kind: &str) -> bool {
    match condition {
        "script" => kind == SCRIPT,
        "command" | "shell" => kind == COMMAND,
        "user" | "env" | "with" => kind == COMMAND || kind == SCRIPT,
        "path" => [FILE_PUT, DIRECTORY_PUT, FILE_GET, FILE_LIST, ENGINE_COMMAND].contains(&kind),
        _ => true,
    }
}

fn is_known(kind: &Pattern) -> bool {
    profile::kinds().any(|known| kind.matches(known) == Found::Yes)
}

/// A type that nobody asks for is a slip of the pen: the rule would never be of use.
fn check_type(pattern: &Pattern) -> Result<(), String> {
    let text = pattern.as_str();
    if is_known(pattern) {
        return Ok(());
    }
    if let Some(meant) = profile::meant(text).filter(|meant| meant != text) {
        return Err(format!(
            "{text:?} is too near to a type of the agent's own: did you mean {meant:?}?"
        ));
    }
    if profile::may_be_a_plugins(text) {
        return Ok(());
    }
    if !profile::is_subject(text) {
        return Err(format!(
            "{text:?} answers or belongs to the connection: no policy is asked for it"
        ));
    }
    Err(format!("{text:?} fits no message type that there is"))
}

fn check_script(item: &str) -> Result<(), String> {
    crate::scripts::check_name(&item.replace(['*', '?'], "x"))
        .map_err(|why| format!("{item:?} fits no name of a script: {why}"))
}

/// What begins or ends with a blank, or has quotes or blanks as no command has them, was meant otherwise.
fn check_command(item: &str) -> Result<(), String> {
    if item.trim() != item {
        return Err(format!(
            "{item:?} begins or ends with a blank, as no command does"
        ));
    }
    if let Some(text) = item.strip_prefix("shell:") {
        return Err(format!("for the text of a shell write shell = [{text:?}]"));
    }
    // As far as nothing can be in quotes.
    let bare = item.split(['\'', '*', '?']).next().unwrap_or_default();
    if bare.contains("  ") {
        return Err(format!(
            "{item:?} has two blanks in a row, as no command has outside of quotes"
        ));
    }
    let odd = |b: u8| b != b' ' && !pattern::is_plain(b);
    if bare.bytes().any(odd) || item.contains('"') && !item.contains('\'') {
        return Err(format!(
            "{item:?}: a word that is not plain stands in single quotes, as 'triton policy test' shows it"
        ));
    }
    Ok(())
}

fn check_user(item: &str) -> Result<(), String> {
    if item.is_empty() || item.contains(['*', '?', ':', '\0', ' ']) {
        return Err(format!(
            "{item:?} is no user: names and numbers, no patterns"
        ));
    }
    Ok(())
}

fn path(item: &str) -> Result<PathBuf, String> {
    let trimmed = match item.trim_end_matches('/') {
        "" if item.starts_with('/') => "/",
        trimmed => trimmed,
    };
    let path = Path::new(trimmed);
    let parts = trimmed.strip_prefix('/').unwrap_or_default();
    let odd = |part: &str| part.is_empty() || part == "." || part == "..";
    if !path.is_absolute() || !parts.is_empty() && parts.split('/').any(odd) || parts.contains('\0')
    {
        return Err(format!(
            "{item:?} is no absolute path without '.', '..' and empty parts"
        ));
    }
    if parts.contains(['*', '?']) {
        return Err(format!(
            "{item:?} is no pattern but a path, which stands for all below it too"
        ));
    }
    Ok(path.to_owned())
}

//! What a profile lets through, and what is asked about at all.

use super::ask::Ask;
use crate::external;
use crate::message::payload::{
    AGENT_STATUS, AGENT_UPDATE, CANCEL, COMMAND, DIRECTORY_PUT, ENGINE_COMMAND, FILE_GET,
    FILE_LIST, FILE_PUT, HISTORY_GET, HISTORY_PUT, SCHEDULE_LIST, SCHEDULE_SET, SCRIPT,
    SCRIPTS_SYNC,
};

/// What only reads: allowed in all profiles and without a rule, unless denied.
const READS: [&str; 4] = [AGENT_STATUS, HISTORY_GET, SCHEDULE_LIST, "module.list"];
/// What Poseidon may ask for besides. Not all of it is spoken by each agent.
const ACTS: [&str; 21] = [
    COMMAND,
    SCRIPT,
    SCRIPTS_SYNC,
    SCHEDULE_SET,
    CANCEL,
    FILE_PUT,
    DIRECTORY_PUT,
    FILE_GET,
    FILE_LIST,
    ENGINE_COMMAND,
    HISTORY_PUT,
    AGENT_UPDATE,
    "agent.reload",
    "agent.restart",
    "agent.exit",
    "system.reboot",
    "system.shutdown",
    "event",
    "metric",
    "module.kill",
    "module.start",
];
/// The beginnings of the agent's own types: no plugin has one of these.
const FAMILIES: [&str; 10] = [
    "agent",
    "history",
    "schedule",
    "module",
    "file",
    "directory",
    "scripts",
    "engine",
    "system",
    "data",
];
/// What belongs to a conversation that is under way, or to the connection: answers, not wishes.
const REPLIES: [&str; 13] = [
    "welcome",
    "bye",
    "ack",
    "ping",
    "pong",
    "error",
    "result",
    "accepted",
    "output",
    "progress",
    "data.request",
    "data.response",
    "data.offer",
];

/// What is let through before any rule is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// All.
    #[default]
    Open,
    /// Scripts, and what belongs to them.
    ScriptsOnly,
    /// What reads; files only where a rule allows their paths.
    ReadOnly,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::ScriptsOnly, Self::ReadOnly];

    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::ScriptsOnly => "scripts-only",
            Self::ReadOnly => "read-only",
        }
    }

    /// Whether requests of this type can come through at all.
    pub fn has(self, kind: &str) -> bool {
        match self {
            _ if is_read(kind) => true,
            Self::Open => true,
            Self::ScriptsOnly => [SCRIPT, SCRIPTS_SYNC, SCHEDULE_SET, CANCEL].contains(&kind),
            Self::ReadOnly => [FILE_GET, FILE_LIST].contains(&kind),
        }
    }

    /// Why a request does not come through. `named`: an allow rule names its path.
    pub fn refuses(self, ask: &Ask<'_>, named: bool) -> Option<&'static str> {
        if !self.has(ask.kind) {
            return Some("it lets no such request through");
        }
        if self == Self::ReadOnly && !is_read(ask.kind) && !named {
            return Some("a file may hold a secret: it needs an allow rule with its path");
        }
        let run = ask.run.filter(|_| self == Self::ScriptsOnly);
        if run.is_some_and(|run| !run.env.is_empty()) {
            return Some("a variable may make another program of a script: env is not let through");
        }
        if run.is_some_and(|run| run.cwd.is_some()) {
            return Some("a script may load what is in its folder: cwd is not let through");
        }
        None
    }
}

/// Whether this only reads.
pub fn is_read(kind: &str) -> bool {
    READS.contains(&kind)
}

/// Whether the policy is asked about this type.
pub fn is_subject(kind: &str) -> bool {
    !REPLIES.contains(&kind)
}

/// What the agent knows, and what anyone may ask about.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    READS.into_iter().chain(ACTS)
}

/// Whether a plugin may have types that fit this pattern.
pub fn may_be_a_plugins(pattern: &str) -> bool {
    external::check_type(&pattern.replace(['*', '?'], "x")).is_ok()
}

/// What was meant by a pattern whose family is one of the agent's own but for one slip of the pen.
pub fn meant(pattern: &str) -> Option<String> {
    let (family, rest) = pattern.split_once('.')?;
    // A wildcard is none, and the way out for a plugin with such a name.
    let is_meant = |own: &&&str| !family.contains(['*', '?']) && is_near(own, family);
    let own = FAMILIES.iter().find(is_meant)?;
    Some(format!("{own}.{rest}"))
}

/// Whether two words are one but for case and one letter more, less, other, or two swapped.
fn is_near(a: &str, b: &str) -> bool {
    let [mut a, mut b] = [a, b].map(|word| word.to_ascii_lowercase().into_bytes());
    // What they begin with alike, then what they end with.
    for _ in 0..2 {
        let same = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
        a.drain(..same);
        b.drain(..same);
        a.reverse();
        b.reverse();
    }
    let swapped = a.len() == 2 && a.iter().eq(b.iter().rev());
    swapped || a.len() < 2 && b.len() < 2
}

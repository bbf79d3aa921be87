//! Tokens, sessions and the audit log, as they are stored.

use super::Result;
use serde::Serialize;

/// A token of the API, without the token.
#[derive(Debug, Clone)]
pub struct Token {
    /// What people call it.
    pub name: String,
    /// SHA-256 of it.
    pub hash: String,
    /// What it may.
    pub role: String,
    /// The selectors of the devices that it is for; none for all.
    pub on: Vec<String>,
    /// When it was made.
    pub created: f64,
    /// Until when it is good.
    pub expires: Option<f64>,
}

/// A session of the page, without its cookie.
#[derive(Debug, Clone)]
pub struct Session {
    /// SHA-256 of the cookie.
    pub hash: String,
    /// SHA-256 of the token that it was made with.
    pub token: String,
    /// When it was made.
    pub created: f64,
    /// When it was last used, more or less.
    pub used: f64,
}

/// An act, as it is written down.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Act {
    /// Its place in the log.
    pub seq: u64,
    /// When it began.
    pub time: f64,
    /// Name of the token; empty where nobody knows.
    pub who: String,
    /// Its role.
    pub role: String,
    /// Where it came from.
    pub address: String,
    /// What was done.
    pub act: String,
    /// To whom or what.
    pub target: String,
    /// How, in short.
    pub detail: String,
    /// Whether it was let through.
    pub allowed: bool,
    /// Status of the answer; without it nobody knows how it ended.
    pub status: Option<u16>,
}

/// Which acts to find; all that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct ActFilter {
    /// At or after.
    pub since: Option<f64>,
    /// Equal.
    pub who: Option<String>,
    /// The whole act, or what it begins with before a dot.
    pub act: Option<String>,
    /// A part of the target.
    pub on: Option<String>,
    /// Written before this one.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u32,
}

/// What a store does for doors.
pub trait DoorStore {
    /// All tokens.
    fn tokens(&mut self) -> Result<Vec<Token>>;
    /// Adds one; false where there is one of this name.
    fn add_token(&mut self, token: &Token) -> Result<bool>;
    /// Takes one away, with its sessions.
    fn delete_token(&mut self, name: &str) -> Result<()>;
    /// All sessions.
    fn sessions(&mut self) -> Result<Vec<Session>>;
    /// Adds one, or notes that it was used.
    fn put_session(&mut self, session: &Session) -> Result<()>;
    /// Ends one.
    fn delete_session(&mut self, hash: &str) -> Result<()>;
    /// Writes an act down; its place.
    fn begin_act(&mut self, act: &Act) -> Result<u64>;
    /// Adds how it ended, once; `more` is added to what was written of it.
    fn end_act(&mut self, seq: u64, status: u16, more: &str) -> Result<()>;
    /// Acts, newest first.
    fn acts(&mut self, filter: &ActFilter) -> Result<Vec<Act>>;
    /// Deletes old acts: the oldest tenth where there are more than `rows`, and those before `before`. Of refused and failed
    /// calls and of logins only so many stay as a tenth of `rows`. A note of that stays.
    fn prune_acts(&mut self, rows: u64, before: f64, now: f64) -> Result<u64>;
}

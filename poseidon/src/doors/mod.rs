//! The doors: who may come in, as what, for how long, and what is written down of it.
//!
//! A token of the API has a role and, unless it is an admin's, may be bound to devices by selectors. A session of the
//! page stands for the token that it was made with and ends with it. [`audit`] is the log of what was done.

pub mod audit;
pub mod origin;

use crate::agents::Key;
use crate::agents::hash;
use crate::agents::registry::Registry;
use crate::agents::scope::Scope;
use crate::jobs::lock;
use crate::server::limits::Attempts;
use crate::store::doors::{Session, Token};
use crate::store::{Db, Only, StoreError};
use crate::time::now;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;
use triton::message::id;

/// The name of the token in the data folder.
pub const LOCAL: &str = "local";
/// Tokens that there may be.
const MAX_TOKENS: usize = 1000;
/// Longest name of a token, in characters.
const NAME_LIMIT: usize = 64;
/// Sessions that there may be; the one that was used longest ago makes room.
const MAX_SESSIONS: usize = 1000;
/// A session that is not used ends after so long, in seconds…
pub const IDLE: f64 = 8.0 * 3600.0;
/// …and each after so long.
pub const SESSION: f64 = 24.0 * 3600.0;
/// That a session was used is stored so often, in seconds.
const NOTE_USE: f64 = 600.0;
/// How often a stream looks whether its token is still good, beyond being told that one was removed.
const LOOK: Duration = Duration::from_secs(5);
/// Wrong tokens that an address may give at once, and how many it gets back each second.
const TRIES: (f64, f64) = (10.0, 0.1);
/// The same for all addresses together.
const ALL_TRIES: (f64, f64) = (100.0, 1.0);
/// Calls beyond its role that are written down of a token at once, and how many more each second.
const REFUSALS: (f64, f64) = (100.0, 0.1);

/// What a token may. Each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees devices, jobs and what was recorded.
    Viewer,
    /// Acts on devices.
    Operator,
    /// Decides who comes in.
    Admin,
}

impl Role {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    fn read(text: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
    }
}

/// Whom a token stands for.
#[derive(Debug)]
pub struct Principal {
    /// Name of the token.
    pub name: String,
    /// What it may.
    pub role: Role,
    /// Selectors of the devices that it is for; none for all.
    pub on: Vec<String>,
    /// When it was made; 0 for the one in the data folder.
    pub created: f64,
    /// Until when it is good.
    pub expires: Option<f64>,
    scope: Scope,
    hash: String,
    refusals: Refusals,
}

/// Calls of a token that were refused, as far as they are written down.
struct Refusals {
    noted: Attempts,
    /// Those that were not, since the last one that was.
    passed_over: AtomicU64,
}

impl Refusals {
    fn new() -> Self {
        Self {
            noted: Attempts::new(REFUSALS.0, REFUSALS.1),
            passed_over: AtomicU64::new(0),
        }
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refusals")
    }
}

impl Principal {
    /// Whether a call of its that is refused is written down, and how many before it were not.
    pub fn may_note(&self) -> Option<u64> {
        let Refusals { noted, passed_over } = &self.refusals;
        if noted
            .check(IpAddr::V4(Ipv4Addr::UNSPECIFIED), false)
            .is_ok()
        {
            return Some(passed_over.swap(0, Ordering::Relaxed));
        }
        passed_over.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// The devices that it sees and touches.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether it may see this device, and what belongs to it.
    pub fn sees(&self, registry: &Registry, key: &Key) -> bool {
        registry.sees(&self.scope, key)
    }

    /// Whether it may see what belongs to a whole identifier, given by its hash.
    pub fn sees_identifier(&self, registry: &Registry, identifier: &str) -> bool {
        registry.sees_identifier(&self.scope, identifier)
    }

    /// The devices that it may see, for a query of the store.
    pub fn only(&self, registry: &Registry) -> Only {
        registry.only(&self.scope)
    }

    fn is_good(&self, now: f64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// Who makes a call.
#[derive(Debug, Clone)]
pub struct Caller {
    /// As whom.
    pub principal: Arc<Principal>,
    /// Hash of the cookie, where it came by one.
    session: Option<String>,
    /// What a call that changes something must carry along with the cookie.
    pub csrf: Option<String>,
    /// When the session ends.
    pub until: Option<f64>,
}

impl Caller {
    /// Whether this is what belongs to the session; takes the same time for every wrong one.
    pub fn fits_csrf(&self, given: &str) -> bool {
        self.csrf
            .as_ref()
            .is_some_and(|csrf| csrf.as_bytes().ct_eq(given.as_bytes()).into())
    }
}

/// Why a token is not made or removed.
#[derive(Debug)]
pub enum TokenError {
    /// What was asked for makes no sense.
    Invalid(String),
    /// The name is taken.
    Taken,
    /// There are too many.
    Full,
    /// There is no such token.
    NotFound,
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for TokenError {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

#[derive(Default)]
struct Inner {
    /// By the hash of the token.
    tokens: HashMap<String, Arc<Principal>>,
    /// By the hash of the cookie.
    sessions: HashMap<String, Session>,
}

/// All tokens and sessions. They are in memory, and in the store as well.
pub struct Doors {
    inner: Mutex<Inner>,
    /// Told when a token or session is gone.
    gone: watch::Sender<()>,
    db: Db,
    /// Wrong tokens at the login.
    tries: Tries,
    /// Wrong tokens elsewhere, as far as they are written down.
    notes: Tries,
}

/// Wrong tokens by address, and of all addresses together.
struct Tries {
    each: Attempts,
    all: Attempts,
}

impl Tries {
    fn new() -> Self {
        Self {
            each: Attempts::new(TRIES.0, TRIES.1),
            all: Attempts::new(ALL_TRIES.0, ALL_TRIES.1),
        }
    }

    fn check(&self, address: IpAddr, succeeds: bool) -> Result<(), u64> {
        self.each.check(address, succeeds)?;
        if succeeds {
            return Ok(());
        }
        self.all.check(IpAddr::V4(Ipv4Addr::UNSPECIFIED), false)
    }
}

impl Doors {
    /// Starts with what is stored and the token in the data folder. What a token is for must make sense, or nobody
    /// knows whom it would let in.
    pub fn new(
        db: Db,
        admin: &str,
        tokens: Vec<Token>,
        sessions: Vec<Session>,
    ) -> Result<Self, String> {
        let local = Principal {
            name: LOCAL.to_owned(),
            role: Role::Admin,
            on: Vec::new(),
            created: 0.0,
            expires: None,
            scope: Scope::default(),
            hash: hash(admin),
            refusals: Refusals::new(),
        };
        let mut inner = Inner::default();
        for token in tokens {
            let name = token.name.clone();
            let principal =
                read(token).map_err(|e| format!("the token {name} cannot be used: {e}"))?;
            inner
                .tokens
                .insert(principal.hash.clone(), Arc::new(principal));
        }
        inner.tokens.insert(local.hash.clone(), Arc::new(local));
        for session in sessions {
            // The token in the data folder may be another by now.
            if inner.tokens.contains_key(&session.token) {
                inner.sessions.insert(session.hash.clone(), session);
            } else {
                db.post(move |store| store.delete_session(&session.hash));
            }
        }
        Ok(Self {
            inner: Mutex::new(inner),
            gone: watch::Sender::new(()),
            db,
            tries: Tries::new(),
            notes: Tries::new(),
        })
    }

    /// Whom a token stands for, unless its time is over. The store knows hashes only, so that time tells nothing.
    pub fn by_token(&self, token: &str) -> Option<Caller> {
        let principal = lock(&self.inner).tokens.get(&hash(token)).cloned()?;
        principal.is_good(now()).then_some(Caller {
            principal,
            session: None,
            csrf: None,
            until: None,
        })
    }

    /// Whom a cookie stands for.
    pub fn by_cookie(&self, cookie: &str) -> Option<Caller> {
        let now = now();
        let hash = hash(cookie);
        let mut inner = lock(&self.inner);
        let session = inner.sessions.get_mut(&hash)?;
        if !is_open(session, now) {
            return None;
        }
        if now - session.used > NOTE_USE {
            session.used = now;
            let row = session.clone();
            self.db.post(move |store| store.put_session(&row));
        }
        let (token, until) = (session.token.clone(), session.created + SESSION);
        let principal = inner.tokens.get(&token)?.clone();
        principal.is_good(now).then(|| Caller {
            principal,
            session: Some(hash),
            csrf: Some(csrf(cookie)),
            until: Some(until),
        })
    }

    /// Whether a caller may still be answered.
    fn is_good(&self, caller: &Caller) -> bool {
        let now = now();
        let inner = lock(&self.inner);
        let token = inner.tokens.get(&caller.principal.hash);
        let session = caller
            .session
            .as_ref()
            .is_none_or(|hash| inner.sessions.get(hash).is_some_and(|s| is_alive(s, now)));
        session && token.is_some_and(|principal| principal.is_good(now))
    }

    /// Returns when the caller's token or session is no longer good.
    pub async fn ended(&self, caller: &Caller) {
        let mut gone = self.gone.subscribe();
        while self.is_good(caller) {
            tokio::select! {
                told = gone.changed() => if told.is_err() { return },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Whether somebody at this address may give a wrong token now, which is counted. The error is the time to wait,
    /// in seconds. A right one is held up by what came from its own address only: nobody else can lock it out.
    pub fn may_try(&self, address: IpAddr, succeeds: bool) -> Result<(), u64> {
        self.tries.check(address, succeeds)
    }

    /// Whether a call with a wrong token is written down: who sends many must not push out what else is in the log.
    pub fn may_note(&self, address: IpAddr) -> bool {
        self.notes.check(address, false).is_ok()
    }

    /// A new session of the token's; its cookie.
    pub async fn log_in(&self, caller: &Caller) -> Result<(String, Caller), StoreError> {
        let cookie = secret();
        let time = now();
        let session = Session {
            hash: hash(&cookie),
            token: caller.principal.hash.clone(),
            created: time,
            used: time,
        };
        let row = session.clone();
        self.db.call(move |store| store.put_session(&row)).await?;
        let over = {
            let mut inner = lock(&self.inner);
            inner.sessions.insert(session.hash.clone(), session.clone());
            take_over(&mut inner, time)
        };
        self.forget(over);
        let caller = Caller {
            principal: caller.principal.clone(),
            session: Some(session.hash),
            csrf: Some(csrf(&cookie)),
            until: Some(time + SESSION),
        };
        Ok((cookie, caller))
    }

    /// Ends the session of a caller; false where there is none.
    pub async fn log_out(&self, caller: &Caller) -> Result<bool, StoreError> {
        let Some(hash) = caller.session.clone() else {
            return Ok(false);
        };
        lock(&self.inner).sessions.remove(&hash);
        self.gone.send_replace(());
        self.db
            .call(move |store| store.delete_session(&hash))
            .await?;
        Ok(true)
    }

    /// Forgets sessions whose time is over.
    pub fn sweep(&self) {
        let over = take_over(&mut lock(&self.inner), now());
        self.forget(over);
    }

    fn forget(&self, over: Vec<String>) {
        for hash in over {
            self.db.post(move |store| store.delete_session(&hash));
        }
    }

    /// All tokens but the one in the data folder, by name.
    pub fn tokens(&self) -> Vec<Arc<Principal>> {
        let inner = lock(&self.inner);
        let mut all: Vec<_> = inner
            .tokens
            .values()
            .filter(|token| token.name != LOCAL)
            .cloned()
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Makes a token, which nobody is told again.
    pub async fn add(
        &self,
        name: &str,
        role: Role,
        on: Vec<String>,
        expires: Option<f64>,
    ) -> Result<(String, Arc<Principal>), TokenError> {
        check_name(name).map_err(TokenError::Invalid)?;
        if role == Role::Admin && !on.is_empty() {
            return Err(TokenError::Invalid(
                "an admin decides who comes in, which is not about some devices: give selectors to a viewer or an operator".to_owned(),
            ));
        }
        let token = format!("ptk_{}", secret());
        let row = Token {
            name: name.to_owned(),
            hash: hash(&token),
            role: role.as_str().to_owned(),
            on,
            created: now(),
            expires,
        };
        let principal = Arc::new(read(row.clone()).map_err(TokenError::Invalid)?);
        if lock(&self.inner).tokens.len() > MAX_TOKENS {
            return Err(TokenError::Full);
        }
        if !self.db.call(move |store| store.add_token(&row)).await? {
            return Err(TokenError::Taken);
        }
        lock(&self.inner)
            .tokens
            .insert(principal.hash.clone(), principal.clone());
        Ok((token, principal))
    }

    /// Takes a token away, and all that came in by it.
    pub async fn remove(&self, name: &str) -> Result<(), TokenError> {
        let known = |principal: &&Arc<Principal>| principal.name == name && name != LOCAL;
        let token = {
            let inner = lock(&self.inner);
            let found = inner.tokens.values().find(known);
            found.ok_or(TokenError::NotFound)?.hash.clone()
        };
        let row = name.to_owned();
        self.db.call(move |store| store.delete_token(&row)).await?;
        let mut inner = lock(&self.inner);
        inner.tokens.remove(&token);
        inner.sessions.retain(|_, session| session.token != token);
        drop(inner);
        self.gone.send_replace(());
        Ok(())
    }
}

/// 256 bits of which nobody knows anything.
fn secret() -> String {
    id::random() + &id::random()
}

/// Made from the cookie, which no other page can read.
fn csrf(cookie: &str) -> String {
    hash(&format!("poseidon csrf\n{cookie}"))
}

/// Whether a session may be used again.
fn is_open(session: &Session, now: f64) -> bool {
    is_alive(session, now) && now < session.used + IDLE + NOTE_USE
}

/// Whether its longest time is not over.
fn is_alive(session: &Session, now: f64) -> bool {
    // Where the clock was set back, it is from the future and nobody knows how old.
    now < session.created + SESSION && session.created < now + NOTE_USE
}

/// Takes out what is over and, of too many, those that were used longest ago; their hashes.
fn take_over(inner: &mut Inner, now: f64) -> Vec<String> {
    let mut over: Vec<String> = inner
        .sessions
        .values()
        .filter(|session| !is_open(session, now))
        .map(|session| session.hash.clone())
        .collect();
    let mut left: Vec<&Session> = inner
        .sessions
        .values()
        .filter(|session| is_open(session, now))
        .collect();
    if left.len() > MAX_SESSIONS {
        left.sort_by(|a, b| b.used.total_cmp(&a.used));
        over.extend(left[MAX_SESSIONS..].iter().map(|s| s.hash.clone()));
    }
    for hash in &over {
        inner.sessions.remove(hash);
    }
    over
}

fn read(token: Token) -> Result<Principal, String> {
    Ok(Principal {
        role: Role::read(&token.role).ok_or_else(|| format!("{} is no role", token.role))?,
        scope: Scope::new(&token.on).map_err(|e| e.to_string())?,
        name: token.name,
        on: token.on,
        created: token.created,
        expires: token.expires,
        hash: token.hash,
        refusals: Refusals::new(),
    })
}

fn check_name(name: &str) -> Result<(), String> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
    if !(1..=NAME_LIMIT).contains(&name.len()) || !name.bytes().all(letter) || name.starts_with('.')
    {
        return Err(format!(
            "the name of a token has 1 to {NAME_LIMIT} letters, digits, `.`, `_`, `-` and `@`, and no dot at its beginning"
        ));
    }
    if name == LOCAL || name == "poseidon" {
        return Err(format!("{name} is the name of what is built in"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

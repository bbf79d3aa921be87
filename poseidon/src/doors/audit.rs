//! The audit log: who did what, to whom, when, from where, and how it ended.
//!
//! An act is written down before it begins, and refused where that fails; how it ended is added before it is answered. A
//! row without a status is of an act that nobody knows the end of: Poseidon was killed meanwhile, say.

use crate::jobs::lock;
use crate::store::doors::{Act, ActFilter};
use crate::store::{Db, Result};
use crate::time::now;
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

/// Longest target, in characters.
const TARGET: usize = 300;
/// Longest text about an act, in characters.
const DETAIL: usize = 2000;
/// Longest text that is added when it is over, in characters.
const MORE: usize = 4000;
/// Items of a list that are shown.
const ITEMS: usize = 20;
/// How deep a body is looked at.
const DEPTH: usize = 4;
/// The status of an act whose client went away before it was over.
pub const BROKEN: u16 = 499;

/// Fields of a body that are written down. What is not among them may be a secret: of that only the name is.
const SHOWN: &[&str] = &[
    "agents",
    "args",
    "argv",
    "arguments",
    "canary",
    "command",
    "comment",
    "concurrency",
    "cron",
    "days",
    "destination",
    "directory",
    "every",
    "expires",
    "expiresSeconds",
    "fingerprint",
    "follow",
    "graceSeconds",
    "group",
    "id",
    "keyId",
    "mode",
    "module",
    "name",
    "offset",
    "on",
    "owner",
    "parent",
    "path",
    "payload",
    "queue",
    "revision",
    "role",
    "schedule",
    "script",
    "seconds",
    "sha256",
    "shell",
    "size",
    "stopOnFailures",
    "timeoutSeconds",
    "type",
    "user",
    "version",
    "workingDirectory",
];

/// The log.
#[derive(Clone)]
pub struct Audit(Db);

/// An act that is not over.
pub struct Begun {
    db: Db,
    seq: u64,
    over: bool,
    /// What is added where it ends without a word.
    notes: Arc<Mutex<String>>,
}

impl Audit {
    /// The log in a store.
    pub fn new(db: Db) -> Self {
        Self(db)
    }

    /// Writes down that an act begins. Where this fails it must not.
    pub async fn begin(&self, act: Act) -> Result<Begun> {
        let act = Act {
            status: None,
            allowed: true,
            ..bounded(act)
        };
        let line = line(&act);
        let seq = self.0.call(move |store| store.begin_act(&act)).await?;
        // Logs can be shipped to where nobody here can change them.
        log::info!("act {seq} begins: {line}");
        Ok(Begun {
            db: self.0.clone(),
            seq,
            over: false,
            notes: Arc::default(),
        })
    }

    /// Writes down what is over already: an act that was refused, or one that did not come by the API.
    pub async fn record(&self, act: Act, allowed: bool, status: u16) -> Result<()> {
        let act = Act {
            status: Some(status),
            allowed,
            ..bounded(act)
        };
        let line = line(&act);
        let seq = self.0.call(move |store| store.begin_act(&act)).await?;
        log::info!("act {seq}: {line}: {status}");
        Ok(())
    }

    /// Acts, newest first.
    pub async fn find(&self, filter: ActFilter) -> Result<Vec<Act>> {
        self.0.call(move |store| store.acts(&filter)).await
    }

    /// Deletes what is beyond the newest `rows`, or older than so many days; leaves a note of it.
    pub async fn prune(&self, rows: u64, days: u32) -> Result<u64> {
        let now = now();
        let before = now - f64::from(days) * 86_400.0;
        self.0
            .call(move |store| store.prune_acts(rows, before, now))
            .await
    }
}

impl Begun {
    /// Adds what is noted meanwhile, even where its client goes away.
    #[must_use]
    pub fn telling(mut self, notes: Arc<Mutex<String>>) -> Self {
        self.notes = notes;
        self
    }

    /// Adds how it ended. That it began is known anyhow.
    pub async fn end(mut self, status: u16, more: &str) {
        self.over = true;
        let (seq, more) = (self.seq, short(more, MORE));
        log::info!("act {seq} ends: {status}");
        let ended = self
            .db
            .call(move |store| store.end_act(seq, status, &more))
            .await;
        if let Err(e) = ended {
            log::error!("the end of act {seq} with status {status} is not in the audit log: {e}");
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.over {
            let (seq, notes) = (self.seq, short(&lock(&self.notes), MORE));
            let more = format!("{notes} its client went away");
            self.db
                .post(move |store| store.end_act(seq, BROKEN, more.trim()));
        }
    }
}

/// An act for the log of the server, without its arguments.
fn line(act: &Act) -> String {
    let target = act.target.escape_debug();
    let Act {
        who,
        role,
        address,
        act,
        ..
    } = act;
    format!("{who:?} ({role}) at {address}: {act} {target}")
}

fn bounded(act: Act) -> Act {
    Act {
        time: now(),
        target: short(&act.target, TARGET),
        detail: short(&act.detail, DETAIL),
        ..act
    }
}

/// At most so many characters of a text.
pub fn short(text: &str, limit: usize) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(limit).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

/// What a body says that may be written down, and whom it names.
pub fn summary(body: &[u8]) -> (String, String) {
    let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(body) else {
        return (String::new(), String::new());
    };
    let names = |field: &str| {
        let names = body.get(field).and_then(Value::as_array);
        names.into_iter().flatten().filter_map(Value::as_str)
    };
    let target: Vec<&str> = names("agents").chain(names("on")).take(ITEMS).collect();
    let mut detail = String::new();
    for (name, value) in &body {
        if name != "agents" {
            field(&mut detail, name, value, 0);
        }
    }
    (target.join(", "), detail)
}

fn field(out: &mut String, name: &str, value: &Value, depth: usize) {
    if out.len() > DETAIL * 4 || value.is_null() {
        return;
    }
    if !out.is_empty() {
        out.push(' ');
    }
    let name = short(name, 64);
    // A name that nobody expects may itself be what somebody typed in the wrong place.
    if !SHOWN.contains(&name.as_str()) {
        let _ = write!(out, "{}=…", if is_word(&name) { &name } else { "?" });
        return;
    }
    match value {
        Value::Object(object) if depth < DEPTH => {
            let mut within = String::new();
            for (name, value) in object {
                field(&mut within, name, value, depth + 1);
            }
            let _ = write!(out, "{name}=({within})");
        }
        Value::Array(items)
            if items
                .iter()
                .all(|item| !item.is_object() && !item.is_array()) =>
        {
            let shown: Vec<String> = items.iter().take(ITEMS).map(Value::to_string).collect();
            let more = if items.len() > ITEMS { ",…" } else { "" };
            let _ = write!(out, "{name}=[{}{more}]", shown.join(","));
        }
        Value::Array(items) => {
            let _ = write!(out, "{name}=[{} items]", items.len());
        }
        Value::Object(_) => {
            let _ = write!(out, "{name}=(…)");
        }
        value => {
            let _ = write!(out, "{name}={value}");
        }
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Sqlite;

    #[test]
    fn a_body_is_told_without_its_secrets() {
        let body = br#"{"agents":["gate","pi/12"],"command":{"argv":["passwd","root"],"stdin":"c2VjcmV0","env":{"KEY":"secret"}},"queue":true}"#;
        let (target, detail) = summary(body);
        assert_eq!(target, "gate, pi/12");
        assert_eq!(
            detail,
            r#"command=(argv=["passwd","root"] env=… stdin=…) queue=true"#
        );
        let (target, detail) = summary(
            br#"{"identifier":"secret","name":"box","attributes":{"key":"secret"},"se cret":1}"#,
        );
        assert_eq!(target, "");
        assert_eq!(detail, r#"attributes=… identifier=… name="box" ?=…"#);
        let (_, detail) = summary(br#"{"token":"secret"}"#);
        assert!(!detail.contains("secret"), "{detail}");
        for odd in [&b"[1]"[..], b"nonsense", b"", b"\"secret\""] {
            assert_eq!(summary(odd), (String::new(), String::new()));
        }
        let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(100_000));
        let act = bounded(Act {
            detail: summary(long.as_bytes()).1,
            ..Act::default()
        });
        assert!(act.detail.chars().count() <= DETAIL + 1);
    }

    fn log() -> (tempfile::TempDir, Audit) {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("db")).unwrap();
        let audit = Audit::new(Db::start(Box::new(store)).unwrap());
        (dir, audit)
    }

    fn act(what: &str, target: &str) -> Act {
        Act {
            who: "ops".to_owned(),
            act: what.to_owned(),
            target: target.to_owned(),
            ..Act::default()
        }
    }

    #[tokio::test]
    async fn what_is_written_stays_and_is_found() {
        let (_dir, audit) = log();
        let begun = audit.begin(act("jobs.create", "gate")).await.unwrap();
        let find = async |filter: ActFilter| {
            audit
                .find(ActFilter {
                    limit: 10,
                    ..filter
                })
                .await
                .unwrap()
        };
        assert_eq!(find(ActFilter::default()).await[0].status, None);
        begun.end(201, "job 7").await;
        audit
            .record(act("tokens.add", "x%"), false, 403)
            .await
            .unwrap();
        drop(audit.begin(act("jobs.cancel", "7")).await.unwrap());
        let all = find(ActFilter::default()).await;
        let told: Vec<_> = all
            .iter()
            .map(|a| (a.act.as_str(), a.allowed, a.status, a.detail.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("jobs.cancel", true, Some(BROKEN), "its client went away"),
                ("tokens.add", false, Some(403), ""),
                ("jobs.create", true, Some(201), "job 7"),
            ]
        );
        let some = |text: &str| Some(text.to_owned());
        for (filter, n) in [
            (
                ActFilter {
                    act: some("jobs"),
                    ..ActFilter::default()
                },
                2,
            ),
            (
                ActFilter {
                    act: some("job"),
                    ..ActFilter::default()
                },
                0,
            ),
            (
                ActFilter {
                    act: some("jobs.cancel"),
                    ..ActFilter::default()
                },
                1,
            ),
            (
                ActFilter {
                    on: some("at"),
                    ..ActFilter::default()
                },
                1,
            ),
            (
                ActFilter {
                    on: some("%"),
                    ..ActFilter::default()
                },
                1,
            ),
            (
                ActFilter {
                    who: some("ops"),
                    ..ActFilter::default()
                },
                3,
            ),
            (
                ActFilter {
                    who: some("op"),
                    ..ActFilter::default()
                },
                0,
            ),
            (
                ActFilter {
                    since: Some(now() + 9.0),
                    ..ActFilter::default()
                },
                0,
            ),
            (
                ActFilter {
                    before: Some(all[0].seq),
                    ..ActFilter::default()
                },
                2,
            ),
        ] {
            assert_eq!(find(filter.clone()).await.len(), n, "{filter:?}");
        }
        // Whoever tries to change it is told no.
        let seq = all[1].seq;
        let changed = audit
            .0
            .call(move |store| store.end_act(seq, 200, "all was well"))
            .await;
        changed.unwrap();
        assert_eq!(find(ActFilter::default()).await[1].status, Some(403));
    }

    #[tokio::test]
    async fn what_anybody_can_have_written_down_pushes_nothing_out() {
        let (_dir, audit) = log();
        audit
            .record(act("trust.accept", "box"), true, 200)
            .await
            .unwrap();
        for n in 0..60 {
            let (allowed, status) = [(false, 403), (true, 400), (true, 200)][n % 3];
            let what = if n % 3 == 2 {
                "session.login"
            } else {
                "jobs.create"
            };
            audit.record(act(what, ""), allowed, status).await.unwrap();
        }
        // A tenth of them, and room for some more.
        assert_eq!(audit.prune(200, 90).await.unwrap(), 42);
        assert_eq!(audit.prune(200, 90).await.unwrap(), 0);
        let filter = ActFilter {
            limit: 100,
            ..ActFilter::default()
        };
        let left = audit.find(filter).await.unwrap();
        assert_eq!(left.len(), 20);
        assert_eq!(left[0].act, "audit.prune.minor");
        assert_eq!(left.last().unwrap().act, "trust.accept");
    }

    #[tokio::test]
    async fn what_is_deleted_leaves_a_note() {
        let (_dir, audit) = log();
        for n in 0..25 {
            audit
                .record(act("jobs.create", &n.to_string()), true, 201)
                .await
                .unwrap();
        }
        assert_eq!(audit.prune(25, 90).await.unwrap(), 0);
        assert_eq!(audit.prune(20, 90).await.unwrap(), 7);
        let filter = ActFilter {
            limit: 100,
            ..ActFilter::default()
        };
        let left = audit.find(filter).await.unwrap();
        assert_eq!((left.len(), left[0].act.as_str()), (19, "audit.prune"));
        assert!(left[0].detail.starts_with("7 rows"), "{}", left[0].detail);
        assert_eq!(
            (left[1].target.as_str(), left[18].target.as_str()),
            ("24", "7")
        );
        assert_eq!(audit.prune(20, 90).await.unwrap(), 0);
        // The clock goes on by two days.
        let later = now() + 2.0 * 86_400.0;
        let pruned = audit
            .0
            .call(move |store| store.prune_acts(20, later, later));
        assert_eq!(pruned.await.unwrap(), 19);
    }
}

//! Tokens, sessions and the audit log in `SQLite`.

use super::{Sqlite, saturate};
use crate::store::doors::{Act, ActFilter, DoorStore, Session, Token};
use crate::store::{Result, StoreError};
use rusqlite::{OptionalExtension as _, params};

/// A note of what was deleted comes at most so often for those that are too old, in seconds.
const DAY: f64 = 86_400.0;
/// What anybody with any token can have written down as often as he likes. The index of migration 10 has the same words.
const MINOR: &str = "(allowed = 0 OR status >= 400 OR act IN ('session.login', 'session.logout', 'audit.prune.minor'))";

impl DoorStore for Sqlite {
    fn tokens(&mut self) -> Result<Vec<Token>> {
        let mut statement = self.db.prepare_cached(
            "SELECT name, hash, role, selectors, created, expires FROM tokens ORDER BY name",
        )?;
        let rows = statement.query_map([], |row| {
            let on: String = row.get(3)?;
            Ok((
                Token {
                    name: row.get(0)?,
                    hash: row.get(1)?,
                    role: row.get(2)?,
                    on: Vec::new(),
                    created: row.get(4)?,
                    expires: row.get(5)?,
                },
                on,
            ))
        })?;
        let mut tokens = Vec::new();
        for row in rows {
            let (mut token, on) = row?;
            // No selectors would mean all devices: what cannot be read must not be taken for that.
            token.on = serde_json::from_str(&on).map_err(|e| {
                StoreError::Failed(format!(
                    "the selectors of the token {} cannot be read: {e}",
                    token.name
                ))
            })?;
            tokens.push(token);
        }
        Ok(tokens)
    }

    fn add_token(&mut self, token: &Token) -> Result<bool> {
        let on = serde_json::to_string(&token.on).map_err(|e| StoreError::Failed(e.to_string()))?;
        let added = self
            .db
            .prepare_cached(
                "INSERT INTO tokens (name, hash, role, selectors, created, expires)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO NOTHING",
            )?
            .execute(params![
                token.name,
                token.hash,
                token.role,
                on,
                token.created,
                token.expires
            ])?;
        Ok(added > 0)
    }

    fn delete_token(&mut self, name: &str) -> Result<()> {
        self.db.execute(
            "DELETE FROM sessions WHERE token = (SELECT hash FROM tokens WHERE name = ?1)",
            [name],
        )?;
        self.db
            .execute("DELETE FROM tokens WHERE name = ?1", [name])?;
        Ok(())
    }

    fn sessions(&mut self) -> Result<Vec<Session>> {
        let mut statement = self
            .db
            .prepare_cached("SELECT hash, token, created, used FROM sessions")?;
        let rows = statement.query_map([], |row| {
            Ok(Session {
                hash: row.get(0)?,
                token: row.get(1)?,
                created: row.get(2)?,
                used: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn put_session(&mut self, session: &Session) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO sessions (hash, token, created, used) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (hash) DO UPDATE SET used = ?4",
            )?
            .execute(params![
                session.hash,
                session.token,
                session.created,
                session.used
            ])?;
        Ok(())
    }

    fn delete_session(&mut self, hash: &str) -> Result<()> {
        self.db
            .prepare_cached("DELETE FROM sessions WHERE hash = ?1")?
            .execute([hash])?;
        Ok(())
    }

    fn begin_act(&mut self, act: &Act) -> Result<u64> {
        self.db
            .prepare_cached(
                "INSERT INTO audit (time, who, role, address, act, target, detail, allowed, status)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                act.time,
                act.who,
                act.role,
                act.address,
                act.act,
                act.target,
                act.detail,
                act.allowed,
                act.status
            ])?;
        Ok(u64::try_from(self.db.last_insert_rowid()).unwrap_or(0))
    }

    fn end_act(&mut self, seq: u64, status: u16, more: &str) -> Result<()> {
        self.db
            .prepare_cached(
                "UPDATE audit SET status = ?2, detail = trim(detail || ' ' || ?3)
                 WHERE seq = ?1 AND status IS NULL",
            )?
            .execute(params![saturate(seq), status, more])?;
        Ok(())
    }

    fn acts(&mut self, filter: &ActFilter) -> Result<Vec<Act>> {
        // GLOB would take the words of the filter for patterns.
        let mut statement = self.db.prepare_cached(
            "SELECT seq, time, who, role, address, act, target, detail, allowed, status FROM audit
             WHERE (?1 IS NULL OR time >= ?1) AND (?2 IS NULL OR who = ?2)
               AND (?3 IS NULL OR act = ?3 OR substr(act, 1, length(?3) + 1) = ?3 || '.')
               AND (?4 IS NULL OR instr(target, ?4) > 0) AND (?5 IS NULL OR seq < ?5)
             ORDER BY seq DESC LIMIT ?6",
        )?;
        let rows = statement.query_map(
            params![
                filter.since,
                filter.who,
                filter.act,
                filter.on,
                filter.before.map(saturate),
                filter.limit
            ],
            |row| {
                Ok(Act {
                    seq: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0),
                    time: row.get(1)?,
                    who: row.get(2)?,
                    role: row.get(3)?,
                    address: row.get(4)?,
                    act: row.get(5)?,
                    target: row.get(6)?,
                    detail: row.get(7)?,
                    allowed: row.get(8)?,
                    status: row.get(9)?,
                })
            },
        )?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn prune_acts(&mut self, rows: u64, before: f64, now: f64) -> Result<u64> {
        let minor = self.prune_minor(rows / 10, now)?;
        // The newest `rows` stay. More goes at a time, so that there is not a note for each that goes.
        let over: Option<i64> = self
            .db
            .prepare_cached("SELECT seq FROM audit ORDER BY seq DESC LIMIT 1 OFFSET ?1")?
            .query_row([saturate(rows)], |row| row.get(0))
            .optional()?;
        let by_number: Option<i64> = match over {
            Some(_) => self
                .db
                .prepare_cached("SELECT seq FROM audit ORDER BY seq DESC LIMIT 1 OFFSET ?1")?
                .query_row([saturate(rows - rows / 10)], |row| row.get(0))
                .optional()?,
            None => None,
        };
        let oldest: Option<f64> = self
            .db
            .prepare_cached("SELECT time FROM audit ORDER BY seq LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        let by_age: Option<i64> = if oldest.is_some_and(|oldest| oldest < before - DAY) {
            self.db
                .prepare_cached("SELECT max(seq) FROM audit WHERE time < ?1")?
                .query_row([before], |row| row.get(0))?
        } else {
            None
        };
        let Some(last) = by_number.max(by_age) else {
            return Ok(minor);
        };
        let deleted = self
            .db
            .prepare_cached("DELETE FROM audit WHERE seq <= ?1")?
            .execute([last])?;
        let reason = if by_age > by_number {
            "--audit-days"
        } else {
            "--audit-rows"
        };
        self.begin_act(&Act {
            time: now,
            who: "poseidon".to_owned(),
            act: "audit.prune".to_owned(),
            target: "audit".to_owned(),
            detail: format!("{deleted} rows up to {last} are deleted ({reason})"),
            allowed: true,
            status: Some(200),
            ..Act::default()
        })?;
        Ok(minor + deleted as u64)
    }
}

impl Sqlite {
    /// Of what is refused, or comes to nothing, the newest `rows` stay: it must not push out what was done.
    fn prune_minor(&mut self, rows: u64, now: f64) -> Result<u64> {
        let nth =
            format!("SELECT seq FROM audit WHERE {MINOR} ORDER BY seq DESC LIMIT 1 OFFSET ?1");
        let mut nth = self.db.prepare_cached(&nth)?;
        let mut find = |place: u64| {
            nth.query_row([saturate(place)], |row| row.get::<_, i64>(0))
                .optional()
        };
        if find(rows)?.is_none() {
            return Ok(0);
        }
        let Some(last) = find(rows - rows / 10)? else {
            return Ok(0);
        };
        drop(nth);
        let deleted = self
            .db
            .prepare_cached(&format!("DELETE FROM audit WHERE seq <= ?1 AND {MINOR}"))?
            .execute([last])?;
        self.begin_act(&Act {
            time: now,
            who: "poseidon".to_owned(),
            act: "audit.prune.minor".to_owned(),
            target: "audit".to_owned(),
            detail: format!(
                "{deleted} rows up to {last} are deleted, of calls that were refused or failed and of logins: these take a \
                 tenth of --audit-rows at most"
            ),
            allowed: true,
            status: Some(200),
            ..Act::default()
        })?;
        Ok(deleted as u64)
    }
}

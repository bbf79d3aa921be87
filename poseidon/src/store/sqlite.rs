//! The embedded store: one `SQLite` file in WAL mode.

mod batches;
mod doors;
mod events;
mod metrics;
mod named;
mod records;
mod repositories;
mod schedules;
mod trust;

use super::records::{Batch, Found, RecordFilter, Stored};
use super::trust::TrustStore as _;
use super::{Identifier, Instance, Job, JobFilter, JobState, Result, Snapshot, Store, StoreError};
use crate::jobs::spool::free;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::value::RawValue;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Each moves the schema on by one version; `user_version` counts them.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001-first.sql"),
    include_str!("../../migrations/0002-records.sql"),
    include_str!("../../migrations/0003-types.sql"),
    include_str!("../../migrations/0004-repositories.sql"),
    include_str!("../../migrations/0005-batches.sql"),
    include_str!("../../migrations/0006-schedules.sql"),
    include_str!("../../migrations/0007-trust.sql"),
    include_str!("../../migrations/0008-events.sql"),
    include_str!("../../migrations/0009-doors.sql"),
    include_str!("../../migrations/0010-audit.sql"),
    include_str!("../../migrations/0011-heartbeat.sql"),
    include_str!("../../migrations/0012-resend.sql"),
];

const JOB_COLUMNS: &str = "token, identifier, instance, agent, state, created, request, result, error, stdout_bytes, stderr_bytes, \
     queue, expires, journal, kind";

/// A list of jobs ends early beyond so many bytes of requests and results: each may have a megabyte.
const LIST_BYTES: usize = 8 << 20;

/// With less room than this a disk that fails is taken for a full one: not each error of it says so.
const ROOM: u64 = 64 << 10;

/// The store in `SQLite`.
pub struct Sqlite {
    db: Connection,
    path: PathBuf,
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        if let rusqlite::Error::SqliteFailure(_, Some(text)) = &e {
            if text.contains("identifiers.name") {
                return Self::NameTaken;
            }
            if text.contains("jobs.token") || text.contains("batches.id") {
                return Self::TokenTaken;
            }
        }
        if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            return Self::Full(e.to_string());
        }
        Self::Failed(e.to_string())
    }
}

/// What an error of the file at `path` comes from.
fn judged(path: &Path, e: StoreError) -> StoreError {
    match e {
        StoreError::Failed(reason)
            if path.parent().and_then(free).is_some_and(|free| free < ROOM) =>
        {
            StoreError::Full(reason)
        }
        e => e,
    }
}

impl Sqlite {
    /// Opens or creates the file and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_file(path).map_err(|e| judged(path, e))
    }

    fn open_file(path: &Path) -> Result<Self> {
        // SQLite would make the file readable by all; its companions take its mode.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| StoreError::Failed(e.to_string()))?;
        let db = Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        // What is acknowledged must survive a cut of power.
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", "ON")?;
        // What is deleted is written over: it may have been a secret.
        db.pragma_update(None, "secure_delete", "ON")?;
        let path = path.to_owned();
        let mut store = Self { db, path };
        store.migrate()?;
        Ok(store)
    }

    fn migrate(&mut self) -> Result<()> {
        let version: usize = self
            .db
            .pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))?
            as usize;
        if version > MIGRATIONS.len() {
            return Err(StoreError::Failed(format!(
                "the data folder is of a newer Poseidon (schema {version}, this one knows {})",
                MIGRATIONS.len()
            )));
        }
        for (next, sql) in (1_u32..).zip(MIGRATIONS).skip(version) {
            let transaction = self.db.transaction()?;
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "user_version", next)?;
            transaction.commit()?;
        }
        Ok(())
    }
}

impl Store for Sqlite {
    fn begin(&mut self) -> Result<()> {
        Ok(self.db.execute_batch("BEGIN")?)
    }

    fn commit(&mut self) -> Result<()> {
        let committed = self.db.execute_batch("COMMIT");
        committed.map_err(|e| judged(&self.path, e.into()))
    }

    fn rollback(&mut self) {
        // Fails where SQLite has already rolled back by itself, which is as good.
        let _ = self.db.execute_batch("ROLLBACK");
    }

    fn is_begun(&self) -> bool {
        !self.db.is_autocommit()
    }

    fn mark(&mut self) -> Result<()> {
        // A full disk makes SQLite undo the whole transaction; what would follow were durable by itself, and all the
        // same reported as failed with the others.
        if !self.is_begun() {
            return Err(StoreError::Failed(
                "what was done before it in the same transaction failed".to_owned(),
            ));
        }
        Ok(self.db.execute_batch("SAVEPOINT call")?)
    }

    fn unmark(&mut self, keep: bool) -> Result<()> {
        Ok(self.db.execute_batch(if keep {
            "RELEASE call"
        } else {
            "ROLLBACK TO call; RELEASE call"
        })?)
    }

    fn load(&mut self) -> Result<Snapshot> {
        let device_keys = self.device_keys()?;
        let mut statement = self.db.prepare(
            "SELECT hash, name, refused, created, attributes, heartbeat FROM identifiers",
        )?;
        let identifiers = statement
            .query_map([], |row| {
                Ok(Identifier {
                    hash: row.get(0)?,
                    name: row.get(1)?,
                    refused: row.get(2)?,
                    created: row.get(3)?,
                    attributes: serde_json::from_str(&row.get::<_, String>(4)?).unwrap_or_default(),
                    heartbeat: row.get(5)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let mut statement = self.db.prepare(
            "SELECT identifier, instance, plain, address, since, last_seen, hello, health, health_at, acked FROM instances",
        )?;
        let instances = statement
            .query_map([], |row| {
                Ok(Instance {
                    identifier: row.get(0)?,
                    instance: row.get(1)?,
                    plain: row.get(2)?,
                    address: row.get(3)?,
                    since: row.get(4)?,
                    last_seen: row.get(5)?,
                    hello: json(row, 6)?,
                    health: json(row, 7)?,
                    health_at: row.get(8)?,
                    acked: u64::try_from(row.get::<_, i64>(9)?).unwrap_or(0),
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let mut statement = self.db.prepare(&format!(
            "SELECT {JOB_COLUMNS} FROM jobs WHERE state < 2 ORDER BY seq"
        ))?;
        let open_jobs = statement
            .query_map([], read_job)?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Snapshot {
            identifiers,
            instances,
            open_jobs,
            device_keys,
        })
    }

    fn put_identifier(&mut self, identifier: &Identifier) -> Result<()> {
        let attributes = serde_json::to_string(&identifier.attributes)
            .map_err(|e| StoreError::Failed(e.to_string()))?;
        self.db
            .prepare_cached(
                "INSERT INTO identifiers (hash, name, refused, created, attributes, heartbeat) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (hash) DO UPDATE SET name = ?2, refused = ?3, attributes = ?5, heartbeat = ?6",
            )?
            .execute(params![
                identifier.hash,
                identifier.name,
                identifier.refused,
                identifier.created,
                attributes,
                identifier.heartbeat
            ])?;
        Ok(())
    }

    fn delete_identifier(&mut self, hash: &str) -> Result<()> {
        self.db
            .execute("DELETE FROM identifiers WHERE hash = ?1", [hash])?;
        Ok(())
    }

    fn put_instances(&mut self, instances: &[Instance]) -> Result<()> {
        // SELECT … WHERE EXISTS: an identifier may have been forgotten since the row was made.
        let mut statement = self.db.prepare_cached(
            "INSERT INTO instances (identifier, instance, plain, address, since, last_seen, hello, health, health_at)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 WHERE EXISTS (SELECT 1 FROM identifiers WHERE hash = ?1)
             ON CONFLICT (identifier, instance) DO UPDATE SET plain = ?3, address = ?4, since = ?5, last_seen = ?6,
             hello = ?7, health = ?8, health_at = ?9",
        )?;
        for row in instances {
            statement.execute(params![
                row.identifier,
                row.instance,
                row.plain,
                row.address,
                row.since,
                row.last_seen,
                row.hello.as_deref().map(RawValue::get),
                row.health.as_deref().map(RawValue::get),
                row.health_at
            ])?;
        }
        Ok(())
    }

    fn delete_instance(&mut self, identifier: &str, instance: &str) -> Result<()> {
        self.db.execute(
            "DELETE FROM instances WHERE identifier = ?1 AND instance = ?2",
            [identifier, instance],
        )?;
        // Where it is empty the keys are the pinned ones, which are nobody's alone.
        self.db.execute(
            "DELETE FROM device_keys WHERE identifier = ?1 AND instance = ?2 AND instance <> ''",
            [identifier, instance],
        )?;
        Ok(())
    }

    fn insert_jobs(&mut self, jobs: &[Job]) -> Result<()> {
        let mut statement = self.db.prepare_cached(
            "INSERT INTO jobs (token, identifier, instance, agent, state, created, request, queue, expires, journal, kind)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        for job in jobs {
            statement.execute(params![
                job.token,
                job.identifier,
                job.instance,
                job.agent,
                job.state as i8,
                job.created,
                job.request.get(),
                job.queue,
                job.expires,
                job.journal,
                job.kind
            ])?;
        }
        Ok(())
    }

    fn send_jobs(&mut self, tokens: &[String], journal: Option<&str>) -> Result<()> {
        let mut statement = self.db.prepare_cached(
            "UPDATE jobs SET state = 0, journal = ?2 WHERE token = ?1 AND state <= 0",
        )?;
        for token in tokens {
            statement.execute(params![token, journal])?;
        }
        Ok(())
    }

    fn queue_job(&mut self, token: &str) -> Result<()> {
        self.db
            .prepare_cached(
                "UPDATE jobs SET state = -1, journal = NULL WHERE token = ?1 AND state = 0",
            )?
            .execute([token])?;
        Ok(())
    }

    fn accept_job(&mut self, token: &str) -> Result<()> {
        self.db
            .prepare_cached("UPDATE jobs SET state = 1 WHERE token = ?1 AND state < 1")?
            .execute([token])?;
        Ok(())
    }

    fn end_job(&mut self, job: &Job) -> Result<()> {
        self.db
            .prepare_cached(
                "UPDATE jobs SET state = 2, result = ?2, error = ?3, stdout_bytes = ?4, stderr_bytes = ?5
                 WHERE token = ?1 AND state < 2",
            )?
            .execute(params![
                job.token,
                job.result.as_deref().map(RawValue::get),
                job.error.as_deref().map(RawValue::get),
                saturate(job.stdout_bytes),
                saturate(job.stderr_bytes)
            ])?;
        Ok(())
    }

    fn job(&mut self, token: &str) -> Result<Option<Job>> {
        Ok(self
            .db
            .prepare_cached(&format!("SELECT {JOB_COLUMNS} FROM jobs WHERE token = ?1"))?
            .query_row([token], read_job)
            .optional()?)
    }

    fn jobs(&mut self, filter: &JobFilter) -> Result<Vec<Job>> {
        // A text for each case, so that SQLite uses the index.
        let condition = match (&filter.identifier, &filter.instance) {
            (None, _) => "?1 IS NULL",
            (Some(_), None) => "identifier = ?1 AND ?2 IS NULL",
            (Some(_), Some(_)) => "identifier = ?1 AND instance = ?2",
        };
        let state = match filter.state {
            None => "?4 IS NULL",
            Some(JobState::Ended) => "state = ?4",
            // The first part names the index of open jobs.
            Some(_) => "state < 2 AND state = ?4",
        };
        let only = match &filter.only {
            None => "?5 IS NULL",
            Some(_) => {
                "(identifier, instance) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?5))"
            }
        };
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT {JOB_COLUMNS} FROM jobs WHERE {condition} AND {state} AND {only} ORDER BY seq DESC LIMIT ?3"
        ))?;
        let rows = statement.query_map(
            params![
                filter.identifier,
                filter.instance,
                filter.limit,
                filter.state.map(|state| state as i8),
                filter.only
            ],
            read_job,
        )?;
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        for job in rows {
            let job = job?;
            bytes += job.request.get().len() + job.result.as_ref().map_or(0, |r| r.get().len());
            jobs.push(job);
            if bytes > LIST_BYTES {
                break;
            }
        }
        Ok(jobs)
    }

    fn ended_tokens(&mut self, identifier: &str, instance: Option<&str>) -> Result<Vec<String>> {
        let mut statement = self.db.prepare(
            "SELECT token FROM jobs WHERE state = 2 AND identifier = ?1 AND (?2 IS NULL OR instance = ?2)",
        )?;
        let tokens = statement.query_map(params![identifier, instance], |row| row.get(0))?;
        Ok(tokens.collect::<rusqlite::Result<_>>()?)
    }

    fn prune_jobs(&mut self, keep: u64) -> Result<Vec<String>> {
        let mut statement = self.db.prepare_cached(
            "DELETE FROM jobs WHERE state = 2 AND seq <= (SELECT coalesce(max(seq), 0) FROM jobs) - ?1
             RETURNING token",
        )?;
        let tokens = statement.query_map([saturate(keep)], |row| row.get(0))?;
        Ok(tokens.collect::<rusqlite::Result<_>>()?)
    }

    fn store_records(&mut self, batch: &Batch) -> Result<Option<Stored>> {
        self.add_records(batch)
    }

    fn records(&mut self, filter: &RecordFilter) -> Result<(Vec<Found>, bool)> {
        self.find_records(filter)
    }

    fn prune_records(&mut self, keep: u64, at_most: u32) -> Result<usize> {
        self.delete_records(keep, at_most)
    }
}

/// `SQLite`'s integers are signed.
fn saturate(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn json(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Box<RawValue>>> {
    let text: Option<String> = row.get(column)?;
    // Only JSON is ever written; a damaged value is left out rather than refused with the whole store.
    Ok(text.and_then(|text| RawValue::from_string(text).ok()))
}

fn read_job(row: &Row<'_>) -> rusqlite::Result<Job> {
    Ok(Job {
        token: row.get(0)?,
        identifier: row.get(1)?,
        instance: row.get(2)?,
        agent: row.get(3)?,
        state: match row.get::<_, i8>(4)? {
            -1 => JobState::Queued,
            0 => JobState::Sent,
            1 => JobState::Accepted,
            _ => JobState::Ended,
        },
        created: row.get(5)?,
        request: json(row, 6)?
            .unwrap_or_else(|| RawValue::NULL.to_owned())
            .into(),
        result: json(row, 7)?,
        error: json(row, 8)?,
        stdout_bytes: u64::try_from(row.get::<_, i64>(9)?).unwrap_or(0),
        stderr_bytes: u64::try_from(row.get::<_, i64>(10)?).unwrap_or(0),
        queue: row.get(11)?,
        expires: row.get(12)?,
        journal: row.get(13)?,
        kind: row.get(14)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Db;
    use crate::store::tests::job;

    /// Where one of several calls in a transaction finds the disk full, each is told the truth.
    #[tokio::test]
    async fn on_a_full_disk_what_is_confirmed_is_stored_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let store = Sqlite::open(&path).unwrap();
        store.db.pragma_update(None, "max_page_count", 100).unwrap();
        let db = Db::start(Box::new(store)).unwrap();
        let calls = (0..200).map(|n| {
            let job = job(&n.to_string(), if n % 7 == 3 { 100_000 } else { 10 });
            db.call(move |store| store.insert_jobs(&[job]))
        });
        let told = futures_util::future::join_all(calls).await;
        let failed: Vec<_> = told.iter().filter_map(|told| told.as_ref().err()).collect();
        assert!(!failed.is_empty());
        for e in &failed {
            assert!(matches!(e, StoreError::Full(_)), "{e}");
            assert!(e.to_string().contains("free space"), "{e}");
        }
        // Who only reads is answered, in between as well.
        let (write, read) = futures_util::future::join(
            db.call({
                let job = job("large", 1_000_000);
                move |store| store.insert_jobs(&[job])
            }),
            db.call(|store| store.job("0")),
        )
        .await;
        assert!(matches!(write, Err(StoreError::Full(_))), "{write:?}");
        assert_eq!(read.unwrap().is_some(), told[0].is_ok());
        // It goes on when there is room.
        db.call(|store| store.queue_job("none")).await.unwrap();
        drop(db);
        let mut again = Sqlite::open(&path).unwrap();
        for (n, told) in told.iter().enumerate() {
            let stored = again.job(&n.to_string()).unwrap().is_some();
            assert_eq!(stored, told.is_ok(), "{n}: {told:?}");
        }
    }
}

//! Named data in `SQLite`.

use super::repositories::unsigned;
use super::{Sqlite, saturate};
use crate::store::named::{Content, Entry, Given, NamedStore, Sealed, Secret};
use crate::store::{Result, StoreError};
use rusqlite::{OptionalExtension as _, Row, params};
use std::collections::HashSet;

const COLUMNS: &str = "name, secret, size, sha256, changed";

impl NamedStore for Sqlite {
    fn given(&mut self, identifier: &str, key: &str) -> Result<Given> {
        Ok(self
            .db
            .prepare_cached(
                "SELECT count(*), coalesce(sum(CASE WHEN value IS NULL THEN 0 ELSE size END), 0)
                 FROM named_data WHERE identifier = ?1 AND name <> ?2",
            )?
            .query_row([identifier, key], |row| {
                Ok(Given {
                    entries: unsigned(row, 0)?,
                    bytes: unsigned(row, 1)?,
                })
            })?)
    }

    fn put_named(
        &mut self,
        identifier: &str,
        entry: &Entry,
        sha256: &str,
        content: &Content,
    ) -> Result<()> {
        let (value, key) = match content {
            Content::Value(value) => (Some(value), None),
            Content::Sealed(sealed) => (Some(&sealed.bytes), Some(&sealed.key)),
            Content::Blob(_) => (None, None),
        };
        self.db
            .prepare_cached(
                "INSERT INTO named_data (identifier, name, secret, size, sha256, changed, value, key)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (identifier, name)
                 DO UPDATE SET secret = ?3, size = ?4, sha256 = ?5, changed = ?6, value = ?7, key = ?8",
            )?
            .execute(params![
                identifier,
                entry.key,
                entry.secret,
                saturate(entry.size),
                sha256,
                entry.changed,
                value,
                key
            ])?;
        Ok(())
    }

    fn named(&mut self, identifier: &str) -> Result<Vec<Entry>> {
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM named_data WHERE identifier = ?1 ORDER BY name"
        ))?;
        let rows = statement.query_map([identifier], read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn named_entry(&mut self, identifier: &str, key: &str) -> Result<Option<Entry>> {
        Ok(self
            .db
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM named_data WHERE identifier = ?1 AND name = ?2"
            ))?
            .query_row([identifier, key], read)
            .optional()?)
    }

    fn named_content(&mut self, identifier: &str, key: &str) -> Result<Option<Content>> {
        Ok(self
            .db
            .prepare_cached(
                "SELECT value, sha256, key FROM named_data WHERE identifier = ?1 AND name = ?2",
            )?
            .query_row([identifier, key], content)
            .optional()?)
    }

    fn delete_named(&mut self, identifier: &str, key: &str) -> Result<bool> {
        let deleted = self
            .db
            .prepare_cached("DELETE FROM named_data WHERE identifier = ?1 AND name = ?2")?
            .execute([identifier, key])?;
        Ok(deleted > 0)
    }

    fn secrets(&mut self) -> Result<Vec<Secret>> {
        let mut statement = self.db.prepare(
            "SELECT value, sha256, key, identifier, name FROM named_data WHERE secret ORDER BY identifier, name",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(Secret {
                content: content(row)?,
                identifier: row.get(3)?,
                name: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn reseal(&mut self, secrets: &[(String, String, Sealed)]) -> Result<()> {
        let transaction = self.db.transaction()?;
        for (identifier, name, sealed) in secrets {
            // The hash of a short one would tell it.
            transaction
                .prepare_cached(
                    "UPDATE named_data SET value = ?3, key = ?4, sha256 = ''
                     WHERE identifier = ?1 AND name = ?2 AND secret",
                )?
                .execute(params![identifier, name, sealed.bytes, sealed.key])?;
        }
        Ok(transaction.commit()?)
    }

    fn wanted_blobs(&mut self, hashes: &[String]) -> Result<HashSet<String>> {
        let mut statement = self.db.prepare_cached(
            "SELECT 1 FROM scripts WHERE sha256 = ?1
             UNION ALL SELECT 1 FROM named_data WHERE sha256 = ?1 AND value IS NULL LIMIT 1",
        )?;
        let mut wanted = HashSet::new();
        for hash in hashes {
            if statement.exists([hash])? {
                wanted.insert(hash.clone());
            }
        }
        Ok(wanted)
    }
}

impl Sqlite {
    /// Once: writes the whole file anew, so that nothing is left of plain secrets in pages that are free now.
    pub fn scrub(&mut self) -> Result<()> {
        let done: bool = self
            .db
            .query_row("SELECT max(done) FROM scrubbed", [], |row| row.get(0))?;
        if done {
            return Ok(());
        }
        self.db.execute_batch("VACUUM")?;
        let truncate = |db: &rusqlite::Connection| {
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
                row.get::<_, bool>(0)
            })
        };
        if truncate(&self.db)? {
            return Err(StoreError::Failed(
                "the write-ahead log is in use".to_owned(),
            ));
        }
        self.db.execute("UPDATE scrubbed SET done = 1", [])?;
        Ok(())
    }

    /// As stores of before did: what is deleted stays in free pages.
    #[cfg(test)]
    pub fn keep_deleted(&mut self) -> Result<()> {
        Ok(self.db.pragma_update(None, "secure_delete", "OFF")?)
    }
}

/// Of `value, sha256, key`.
fn content(row: &Row<'_>) -> rusqlite::Result<Content> {
    Ok(match (row.get(0)?, row.get(2)?) {
        (Some(bytes), Some(key)) => Content::Sealed(Sealed { key, bytes }),
        (Some(value), None) => Content::Value(value),
        (None, _) => Content::Blob(row.get(1)?),
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let secret: bool = row.get(1)?;
    let sha256: String = row.get(3)?;
    Ok(Entry {
        key: row.get(0)?,
        secret,
        size: unsigned(row, 2)?,
        sha256: (!secret).then_some(sha256),
        changed: row.get(4)?,
    })
}

//! Named data in `SQLite`.

use super::repositories::unsigned;
use super::{Sqlite, saturate};
use crate::store::Result;
use crate::store::named::{Content, Entry, Given, NamedStore};
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
        let value = match content {
            Content::Value(value) => Some(value),
            Content::Blob(_) => None,
        };
        self.db
            .prepare_cached(
                "INSERT INTO named_data (identifier, name, secret, size, sha256, changed, value)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (identifier, name)
                 DO UPDATE SET secret = ?3, size = ?4, sha256 = ?5, changed = ?6, value = ?7",
            )?
            .execute(params![
                identifier,
                entry.key,
                entry.secret,
                saturate(entry.size),
                sha256,
                entry.changed,
                value
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
                "SELECT value, sha256 FROM named_data WHERE identifier = ?1 AND name = ?2",
            )?
            .query_row([identifier, key], |row| {
                Ok(match row.get(0)? {
                    Some(value) => Content::Value(value),
                    None => Content::Blob(row.get(1)?),
                })
            })
            .optional()?)
    }

    fn delete_named(&mut self, identifier: &str, key: &str) -> Result<bool> {
        let deleted = self
            .db
            .prepare_cached("DELETE FROM named_data WHERE identifier = ?1 AND name = ?2")?
            .execute([identifier, key])?;
        Ok(deleted > 0)
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

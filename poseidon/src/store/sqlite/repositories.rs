//! Repositories in `SQLite`.

use super::{Sqlite, saturate};
use crate::store::Result;
use crate::store::repositories::{RepositoryStore, Revision, Script, Which};
use rusqlite::{OptionalExtension as _, Row, params};
use std::collections::HashMap;

const COLUMNS: &str = "revision, number, parent, created, comment, files, bytes";

impl RepositoryStore for Sqlite {
    fn knows(&mut self, identifier: &str) -> Result<bool> {
        Ok(self
            .db
            .prepare_cached("SELECT 1 FROM identifiers WHERE hash = ?1")?
            .exists([identifier])?)
    }

    fn revision(&mut self, identifier: &str, which: &Which) -> Result<Option<Revision>> {
        let (number, id) = match which {
            Which::Current => (None, None),
            Which::Number(number) => (Some(saturate(*number)), None),
            Which::Id(id) => (None, Some(id)),
        };
        Ok(self
            .db
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM revisions WHERE identifier = ?1
                 AND (?2 IS NULL OR number = ?2) AND (?3 IS NULL OR revision = ?3)
                 ORDER BY number DESC LIMIT 1"
            ))?
            .query_row(params![identifier, number, id], read)
            .optional()?)
    }

    fn revisions(&mut self, identifier: &str) -> Result<Vec<Revision>> {
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM revisions WHERE identifier = ?1 ORDER BY number DESC"
        ))?;
        let rows = statement.query_map([identifier], read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn scripts(&mut self, identifier: &str, number: u64) -> Result<Vec<Script>> {
        let mut statement = self.db.prepare_cached(
            "SELECT path, sha256, size, mode FROM scripts
             WHERE identifier = ?1 AND first <= ?2 AND (last IS NULL OR last >= ?2) ORDER BY path",
        )?;
        let rows = statement.query_map(params![identifier, saturate(number)], |row| {
            Ok(Script {
                path: row.get(0)?,
                sha256: row.get(1)?,
                size: unsigned(row, 2)?,
                mode: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn add_revision(
        &mut self,
        identifier: &str,
        revision: &Revision,
        files: &[Script],
        keep: u64,
    ) -> Result<()> {
        let before = self.scripts(identifier, revision.number.saturating_sub(1))?;
        let stays: HashMap<&str, &Script> = files.iter().map(|f| (f.path.as_str(), f)).collect();
        let mut close = self.db.prepare_cached(
            "UPDATE scripts SET last = ?3 WHERE identifier = ?1 AND path = ?2 AND last IS NULL",
        )?;
        for file in &before {
            if stays.get(file.path.as_str()) != Some(&file) {
                close.execute(params![
                    identifier,
                    file.path,
                    saturate(revision.number) - 1
                ])?;
            }
        }
        let before: HashMap<&str, &Script> = before.iter().map(|f| (f.path.as_str(), f)).collect();
        let mut insert = self.db.prepare_cached(
            "INSERT INTO scripts (identifier, path, first, sha256, size, mode) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for file in files {
            if before.get(file.path.as_str()) != Some(&file) {
                insert.execute(params![
                    identifier,
                    file.path,
                    saturate(revision.number),
                    file.sha256,
                    saturate(file.size),
                    file.mode
                ])?;
            }
        }
        self.db
            .prepare_cached(&format!(
                "INSERT INTO revisions (identifier, {COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
            ))?
            .execute(params![
                identifier,
                revision.revision,
                saturate(revision.number),
                revision.parent,
                revision.created,
                revision.comment,
                saturate(revision.files),
                saturate(revision.bytes)
            ])?;
        let gone = saturate(revision.number) - saturate(keep);
        for sql in [
            "DELETE FROM revisions WHERE identifier = ?1 AND number <= ?2",
            "DELETE FROM scripts WHERE identifier = ?1 AND last <= ?2",
        ] {
            self.db
                .prepare_cached(sql)?
                .execute(params![identifier, gone])?;
        }
        Ok(())
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Revision> {
    Ok(Revision {
        revision: row.get(0)?,
        number: unsigned(row, 1)?,
        parent: row.get(2)?,
        created: row.get(3)?,
        comment: row.get(4)?,
        files: unsigned(row, 5)?,
        bytes: unsigned(row, 6)?,
    })
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

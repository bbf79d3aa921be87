//! Metrics in `SQLite`.

use super::Sqlite;
use crate::store::Result;
use crate::store::metrics::{Chunk, MetricStore};
use rusqlite::{OptionalExtension as _, Row, params};

const COLUMNS: &str = "identifier, instance, step, start, data";

impl MetricStore for Sqlite {
    fn put_chunks(&mut self, chunks: &[Chunk]) -> Result<()> {
        // SELECT … WHERE EXISTS: an instance may have been forgotten, and a new one's row may not be written yet.
        let mut statement = self.db.prepare_cached(
            "INSERT INTO metrics (identifier, instance, step, start, data)
             SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS
             (SELECT 1 FROM instances WHERE identifier = ?1 AND instance = ?2)
             ON CONFLICT (identifier, instance, step, start) DO UPDATE SET data = ?5",
        )?;
        for chunk in chunks {
            statement.execute(params![
                chunk.identifier,
                chunk.instance,
                chunk.step,
                chunk.start,
                chunk.data
            ])?;
        }
        Ok(())
    }

    fn chunks(
        &mut self,
        identifier: &str,
        instance: &str,
        step: u32,
        from: i64,
    ) -> Result<Vec<Chunk>> {
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM metrics WHERE identifier = ?1 AND instance = ?2 AND step = ?3 AND start >= ?4
             ORDER BY start"
        ))?;
        let rows = statement.query_map(params![identifier, instance, step, from], read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn old_chunks(&mut self, step: u32, before: i64, at_most: u32) -> Result<Vec<Chunk>> {
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM metrics WHERE step = ?1 AND start < ?2 LIMIT ?3"
        ))?;
        let rows = statement.query_map(params![step, before, at_most], read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn chunk(
        &mut self,
        identifier: &str,
        instance: &str,
        step: u32,
        start: i64,
    ) -> Result<Option<Vec<u8>>> {
        Ok(self
            .db
            .prepare_cached(
                "SELECT data FROM metrics WHERE identifier = ?1 AND instance = ?2 AND step = ?3 AND start = ?4",
            )?
            .query_row(params![identifier, instance, step, start], |row| row.get(0))
            .optional()?)
    }

    fn delete_chunk(&mut self, chunk: &Chunk) -> Result<()> {
        self.db
            .prepare_cached(
                "DELETE FROM metrics WHERE identifier = ?1 AND instance = ?2 AND step = ?3 AND start = ?4",
            )?
            .execute(params![
                chunk.identifier,
                chunk.instance,
                chunk.step,
                chunk.start
            ])?;
        Ok(())
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Chunk> {
    Ok(Chunk {
        identifier: row.get(0)?,
        instance: row.get(1)?,
        step: row.get(2)?,
        start: row.get(3)?,
        data: row.get(4)?,
    })
}

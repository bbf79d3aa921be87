//! Schedules in `SQLite`.

use super::{Sqlite, json};
use crate::store::schedules::{Schedule, ScheduleStore};
use crate::store::{Result, StoreError};
use rusqlite::{OptionalExtension as _, params};

impl ScheduleStore for Sqlite {
    fn schedule(&mut self, identifier: &str) -> Result<Option<Schedule>> {
        let found = self
            .db
            .prepare_cached(
                "SELECT revision, entries, changed FROM schedules WHERE identifier = ?1",
            )?
            .query_row([identifier], |row| {
                Ok((row.get(0)?, json(row, 1)?, row.get(2)?))
            })
            .optional()?;
        let Some((revision, entries, changed)) = found else {
            return Ok(None);
        };
        // An empty list in its place would take the devices' entries away.
        let entries = entries.ok_or_else(|| {
            StoreError::Failed("a stored schedule is damaged: set it anew".to_owned())
        })?;
        Ok(Some(Schedule {
            revision,
            entries,
            changed,
        }))
    }

    fn schedule_revision(&mut self, identifier: &str) -> Result<Option<String>> {
        Ok(self
            .db
            .prepare_cached("SELECT revision FROM schedules WHERE identifier = ?1")?
            .query_row([identifier], |row| row.get(0))
            .optional()?)
    }

    fn put_schedule(&mut self, identifier: &str, schedule: &Schedule) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO schedules (identifier, revision, entries, changed) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (identifier) DO UPDATE SET revision = ?2, entries = ?3, changed = ?4",
            )?
            .execute(params![
                identifier,
                schedule.revision,
                schedule.entries.get(),
                schedule.changed
            ])?;
        Ok(())
    }
}

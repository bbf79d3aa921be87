//! Keys of devices in `SQLite`.

use super::Sqlite;
use crate::store::Result;
use crate::store::trust::{DeviceKey, TrustStore};
use rusqlite::params;

impl TrustStore for Sqlite {
    fn device_keys(&mut self) -> Result<Vec<DeviceKey>> {
        let mut statement = self
            .db
            .prepare("SELECT identifier, instance, key, since FROM device_keys ORDER BY since")?;
        let rows = statement.query_map([], |row| {
            Ok(DeviceKey {
                identifier: row.get(0)?,
                instance: row.get(1)?,
                key: row.get(2)?,
                since: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn set_device_keys(
        &mut self,
        identifier: &str,
        instance: Option<&str>,
        keys: &[DeviceKey],
    ) -> Result<()> {
        self.db
            .prepare_cached(
                "DELETE FROM device_keys WHERE identifier = ?1 AND (?2 IS NULL OR instance = ?2)",
            )?
            .execute(params![identifier, instance])?;
        let mut statement = self.db.prepare_cached(
            "INSERT INTO device_keys (identifier, instance, key, since)
             SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM identifiers WHERE hash = ?1)",
        )?;
        for key in keys {
            statement.execute(params![key.identifier, key.instance, key.key, key.since])?;
        }
        Ok(())
    }
}

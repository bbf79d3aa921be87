//! Records in `SQLite`.

use super::{LIST_BYTES, Sqlite, saturate};
use crate::store::records::{Batch, Found, Order, Record, RecordFilter, Stored};
use crate::store::{Result, Store as _};
use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, Row, params, params_from_iter};
use serde_json::value::RawValue;

impl Sqlite {
    pub(super) fn add_records(&mut self, batch: &Batch) -> Result<Option<Stored>> {
        // The row of a new instance is written a moment after it comes, maybe later than this.
        self.db
            .prepare_cached(
                "INSERT INTO instances (identifier, instance, plain, address, since, last_seen)
                 SELECT ?1, ?2, 0, ?3, ?4, ?4 WHERE EXISTS (SELECT 1 FROM identifiers WHERE hash = ?1)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                batch.identifier,
                batch.instance,
                batch.address,
                batch.received
            ])?;
        let known: Option<i64> = self
            .db
            .prepare_cached("SELECT acked FROM instances WHERE identifier = ?1 AND instance = ?2")?
            .query_row([&batch.identifier, &batch.instance], |row| row.get(0))
            .optional()?;
        let Some(known) = known else {
            return Ok(None);
        };
        let known = u64::try_from(known).unwrap_or(0);
        let mut stored = Stored {
            acked: known,
            row: None,
            event: None,
        };
        let mut insert = self.db.prepare_cached(
            "INSERT OR IGNORE INTO records (identifier, instance, id, token, code, etime, ctime, received, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for record in &batch.records {
            if record.id <= stored.acked {
                continue;
            }
            if let Some(event) = batch.events.get(&record.id) {
                stored.event = Some(self.add_event(batch, event)?);
                stored.acked = record.id;
                continue;
            }
            let new = insert.execute(params![
                batch.identifier,
                batch.instance,
                saturate(record.id),
                record.token,
                record.code,
                finite(record.etime),
                finite(record.ctime),
                batch.received,
                record.data.get()
            ])?;
            if new > 0 {
                stored.row = u64::try_from(self.db.last_insert_rowid()).ok();
            }
            stored.acked = record.id;
        }
        drop(insert);
        if stored.acked > known {
            self.db
                .prepare_cached(
                    "UPDATE instances SET acked = ?3 WHERE identifier = ?1 AND instance = ?2",
                )?
                .execute(params![
                    batch.identifier,
                    batch.instance,
                    saturate(stored.acked)
                ])?;
        }
        for token in &batch.accepted {
            self.accept_job(token)?;
        }
        for job in &batch.ended {
            self.end_job(job)?;
        }
        Ok(Some(stored))
    }

    pub(super) fn find_records(&mut self, filter: &RecordFilter) -> Result<(Vec<Found>, bool)> {
        let (condition, mut values) = condition(filter);
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let direction = match filter.order {
            Order::Asc => "ASC",
            Order::Desc => "DESC",
        };
        values.push(Value::Integer(i64::from(filter.limit) + 1));
        // Within one instance the order of arrival is that of the sequence, which has an index.
        let column = if filter.instance.is_some() {
            "id"
        } else {
            "row"
        };
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT row, identifier, instance, id, token, code, etime, ctime, received, data FROM records
             WHERE {condition} ORDER BY {column} {direction} LIMIT ?"
        ))?;
        let rows = statement.query_map(params_from_iter(values), read)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for one in rows {
            if found.len() == limit || bytes > LIST_BYTES {
                return Ok((found, true));
            }
            let one = one?;
            bytes += one.record.data.get().len() + one.record.token.len();
            found.push(one);
        }
        Ok((found, false))
    }

    pub(super) fn delete_records(&mut self, keep: u64, at_most: u32) -> Result<usize> {
        let last: Option<i64> = self
            .db
            .prepare_cached("SELECT row FROM records ORDER BY row DESC LIMIT 1 OFFSET ?1")?
            .query_row([saturate(keep)], |row| row.get(0))
            .optional()?;
        let Some(last) = last else {
            return Ok(0);
        };
        Ok(self
            .db
            .prepare_cached(
                "DELETE FROM records WHERE row IN
                 (SELECT row FROM records WHERE row <= ?1 ORDER BY row LIMIT ?2)",
            )?
            .execute(params![last, at_most])?)
    }
}

/// The condition as text, with a question mark for each value.
fn condition(filter: &RecordFilter) -> (String, Vec<Value>) {
    let mut parts = vec!["1"];
    let mut values = Vec::new();
    let mut push = |part: &'static str, value: Option<Value>| {
        if let Some(value) = value {
            parts.push(part);
            values.push(value);
        }
    };
    let text = |text: &Option<String>| text.clone().map(Value::Text);
    let number = |number: Option<u64>| number.map(|n| Value::Integer(saturate(n)));
    // The plus keeps SQLite from sorting all records of an identifier: those of one instance and of one token have
    // an index that fits, and the others are found fastest by going through the rows in their order.
    let identifier = if filter.instance.is_some() {
        "identifier = ?"
    } else {
        "+identifier = ?"
    };
    push(identifier, text(&filter.identifier));
    push("instance = ?", text(&filter.instance));
    push("token = ?", text(&filter.token));
    push("code = ?", filter.code.map(|n| Value::Integer(n.into())));
    push("ctime >= ?", filter.ctime.map(Value::Real));
    push("etime >= ?", filter.etime.map(Value::Real));
    push("id > ?", number(filter.id));
    push("row > ?", number(filter.after));
    push("row < ?", number(filter.before));
    push(
        "(identifier, instance) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))",
        filter
            .only
            .as_deref()
            .map(|only| Value::Text(only.to_owned())),
    );
    (parts.join(" AND "), values)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Found> {
    let number = |column: usize| -> rusqlite::Result<u64> {
        Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
    };
    Ok(Found {
        row: number(0)?,
        identifier: row.get(1)?,
        instance: row.get(2)?,
        received: row.get(8)?,
        record: Record {
            id: number(3)?,
            token: row.get(4)?,
            code: row.get(5)?,
            etime: row.get(6)?,
            ctime: row.get(7)?,
            // The token is what Poseidon goes by.
            conversation: None,
            data: super::json(row, 9)?.unwrap_or_else(|| RawValue::NULL.to_owned()),
        },
    })
}

/// `SQLite` makes NULL of what is no number.
fn finite(time: f64) -> f64 {
    if time.is_finite() { time } else { 0.0 }
}

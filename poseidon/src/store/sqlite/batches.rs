//! Batches in `SQLite`.

use super::{Sqlite, json, saturate};
use crate::store::batches::{Batch, BatchStore, Counts, Member, MemberEnd, MemberState, Stopped};
use crate::store::{Only, Result, StoreError};
use rusqlite::{OptionalExtension as _, Row, params};
use serde_json::value::RawValue;

const COLUMNS: &str = "id, created, kind, request, selectors, agents, concurrency, canary, stop_on_failures, queue, expires, \
     total, stopped, ended, counts, seq";

impl BatchStore for Sqlite {
    fn insert_batch(&mut self, batch: &Batch, members: &[Member]) -> Result<()> {
        let text = |list: &[String]| {
            serde_json::to_string(list).map_err(|e| StoreError::Failed(e.to_string()))
        };
        self.db
            .prepare_cached(
                "INSERT INTO batches (id, created, kind, request, selectors, agents, concurrency, canary, stop_on_failures,
                 queue, expires, total) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(params![
                batch.id,
                batch.created,
                batch.kind,
                batch.request.get(),
                text(&batch.on)?,
                text(&batch.agents)?,
                batch.concurrency,
                batch.canary,
                batch.stop_on_failures,
                batch.queue,
                batch.expires,
                batch.total
            ])?;
        let seq = self.db.last_insert_rowid();
        let mut statement = self.db.prepare_cached(
            "INSERT INTO batch_members (batch, number, identifier, instance, agent, token, started, state, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for (number, member) in (0_u32..).zip(members) {
            statement.execute(params![
                seq,
                number,
                member.identifier,
                member.instance,
                member.agent,
                member.token,
                member.started,
                member.end.as_ref().map(|end| end.state.as_str()),
                member.end.as_ref().map(detail).transpose()?
            ])?;
        }
        Ok(())
    }

    fn end_members(&mut self, batch: &str, ended: &[(u32, bool, MemberEnd)]) -> Result<()> {
        let mut statement = self.db.prepare_cached(
            "UPDATE batch_members SET started = ?3, state = ?4, detail = ?5
             WHERE batch = (SELECT seq FROM batches WHERE id = ?1) AND number = ?2 AND state IS NULL",
        )?;
        for (number, started, end) in ended {
            statement.execute(params![
                batch,
                number,
                started,
                end.state.as_str(),
                detail(end)?
            ])?;
        }
        Ok(())
    }

    fn stop_batch(&mut self, batch: &str, why: Stopped) -> Result<()> {
        self.db
            .prepare_cached("UPDATE batches SET stopped = ?2 WHERE id = ?1 AND ended IS NULL")?
            .execute(params![batch, why.as_str()])?;
        Ok(())
    }

    fn end_batch(&mut self, batch: &str, ended: f64, counts: &Counts) -> Result<()> {
        let counts =
            serde_json::to_string(counts).map_err(|e| StoreError::Failed(e.to_string()))?;
        self.db
            .prepare_cached(
                "UPDATE batches SET ended = ?2, counts = ?3 WHERE id = ?1 AND ended IS NULL",
            )?
            .execute(params![batch, ended, counts])?;
        Ok(())
    }

    fn batch(&mut self, id: &str) -> Result<Option<(Batch, Vec<Member>)>> {
        let found = self
            .db
            .prepare_cached(&format!("SELECT {COLUMNS} FROM batches WHERE id = ?1"))?
            .query_row([id], read_batch)
            .optional()?;
        found
            .map(|(batch, seq)| Ok((batch, self.members(seq)?)))
            .transpose()
    }

    fn open_batches(&mut self) -> Result<Vec<(Batch, Vec<Member>)>> {
        let open: Vec<(Batch, i64)> = self
            .db
            .prepare(&format!(
                "SELECT {COLUMNS} FROM batches WHERE ended IS NULL ORDER BY seq"
            ))?
            .query_map([], read_batch)?
            .collect::<rusqlite::Result<_>>()?;
        open.into_iter()
            .map(|(batch, seq)| Ok((batch, self.members(seq)?)))
            .collect()
    }

    fn batches(&mut self, limit: u32, only: &Only) -> Result<Vec<Batch>> {
        let condition = match only {
            None => "?2 IS NULL",
            Some(_) => {
                "NOT EXISTS (SELECT 1 FROM batch_members WHERE batch = seq AND (identifier, instance)
                 NOT IN (SELECT value ->> 0, value ->> 1 FROM json_each(?2)))"
            }
        };
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM batches WHERE {condition} ORDER BY seq DESC LIMIT ?1"
        ))?;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        for batch in statement.query_map(params![limit, only], read_batch)? {
            let (batch, _) = batch?;
            bytes += batch.request.get().len();
            batches.push(batch);
            if bytes > super::LIST_BYTES {
                break;
            }
        }
        Ok(batches)
    }

    fn prune_batches(&mut self, keep: u64, keep_members: u64) -> Result<usize> {
        Ok(self
            .db
            .prepare_cached(
                "DELETE FROM batches WHERE ended IS NOT NULL AND seq IN (
                   SELECT seq FROM (
                     SELECT seq, row_number() OVER newest AS place, sum(total) OVER newest AS members
                     FROM batches WINDOW newest AS (ORDER BY seq DESC))
                   WHERE place > ?1 OR (place > 1 AND members > ?2))",
            )?
            .execute(params![saturate(keep), saturate(keep_members)])?)
    }
}

impl Sqlite {
    fn members(&mut self, seq: i64) -> Result<Vec<Member>> {
        let mut statement = self.db.prepare_cached(
            "SELECT identifier, instance, agent, token, started, state, detail FROM batch_members
             WHERE batch = ?1 ORDER BY number",
        )?;
        let members = statement.query_map([seq], |row| {
            let state: Option<String> = row.get(5)?;
            let detail: Option<String> = row.get(6)?;
            Ok(Member {
                identifier: row.get(0)?,
                instance: row.get(1)?,
                agent: row.get(2)?,
                token: row.get(3)?,
                started: row.get(4)?,
                end: state
                    .and_then(|s| MemberState::read(&s))
                    .map(|state| MemberEnd {
                        state,
                        detail: detail
                            .and_then(|text| serde_json::from_str(&text).ok())
                            .unwrap_or_default(),
                    }),
            })
        })?;
        Ok(members.collect::<rusqlite::Result<_>>()?)
    }
}

fn detail(end: &MemberEnd) -> Result<String> {
    serde_json::to_string(&end.detail).map_err(|e| StoreError::Failed(e.to_string()))
}

fn read_batch(row: &Row<'_>) -> rusqlite::Result<(Batch, i64)> {
    let list = |column: usize| -> rusqlite::Result<Vec<String>> {
        Ok(serde_json::from_str(&row.get::<_, String>(column)?).unwrap_or_default())
    };
    let stopped: Option<String> = row.get(12)?;
    let counts: Option<String> = row.get(14)?;
    let batch = Batch {
        id: row.get(0)?,
        created: row.get(1)?,
        kind: row.get(2)?,
        request: json(row, 3)?
            .unwrap_or_else(|| RawValue::NULL.to_owned())
            .into(),
        on: list(4)?,
        agents: list(5)?,
        concurrency: row.get(6)?,
        canary: row.get(7)?,
        stop_on_failures: row.get(8)?,
        queue: row.get(9)?,
        expires: row.get(10)?,
        total: row.get(11)?,
        stopped: stopped.and_then(|text| Stopped::read(&text)),
        ended: row.get(13)?,
        counts: counts.and_then(|text| serde_json::from_str(&text).ok()),
    };
    Ok((batch, row.get(15)?))
}

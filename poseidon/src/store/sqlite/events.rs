//! CEF events in `SQLite`.

use super::repositories::unsigned;
use super::{LIST_BYTES, Sqlite, saturate};
use crate::store::Result;
use crate::store::events::{
    Event, EventFilter, EventState, EventStore, Found, Header, Instances, Seen, Window,
};
use crate::store::records::Batch;
use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, Row, params, params_from_iter};

const COLUMNS: &str = "e.row, e.identifier, e.instance, e.id, e.time, e.stored, e.received, e.severity, e.format, \
     e.vendor, e.product, e.version, e.signature, e.name, e.agent, e.host, e.source, e.line";

/// One call deletes no more than that: the words of long lines take their time.
const PRUNE_BYTES: u64 = 8 << 20;

impl Sqlite {
    /// Adds an event of a batch; returns its row.
    pub(super) fn add_event(&self, batch: &Batch, event: &Event) -> Result<u64> {
        let header = event.header.as_ref();
        let at = event.time.min(batch.received);
        self.db
            .prepare_cached(
                "INSERT INTO events (identifier, instance, id, time, at, stored, received, severity, format, vendor,
                 product, version, signature, name, agent, host, source, bytes, line)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
            )?
            .execute(params![
                batch.identifier,
                batch.instance,
                saturate(event.id),
                event.time,
                at,
                event.stored,
                batch.received,
                event.severity,
                header.map(|h| h.format),
                header.map(|h| &h.vendor),
                header.map(|h| &h.product),
                header.map(|h| &h.version),
                header.map(|h| &h.signature),
                header.map(|h| &h.name),
                event.agent,
                event.host,
                event.source,
                saturate(event.bytes()),
                event.line
            ])?;
        // The triggers write to other tables; SQLite gives back the row of the outer insert all the same.
        Ok(u64::try_from(self.db.last_insert_rowid()).unwrap_or(0))
    }
}

impl EventStore for Sqlite {
    fn events(&mut self, filter: &EventFilter, window: Window) -> Result<Seen> {
        let (condition, values) = condition(filter, window);
        let (from, row) = match filter.words {
            Some(_) => (
                "event_words w CROSS JOIN events e ON e.row = w.rowid",
                "w.rowid",
            ),
            None => ("events e", "e.row"),
        };
        let direction = if window.newest_first { "DESC" } else { "ASC" };
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM {from} WHERE {condition} ORDER BY {row} {direction}"
        ))?;
        let mut rows = statement.query(params_from_iter(values))?;
        let (mut seen, mut bytes) = (Seen::default(), 0);
        while let Some(row) = rows.next()? {
            if !filter
                .instances
                .as_ref()
                .is_none_or(|only| is_of(row, only))
            {
                continue;
            }
            if seen.found.len() == window.limit || bytes > LIST_BYTES {
                seen.cut = true;
                break;
            }
            let found = read(row)?;
            bytes += found.event.line.len();
            seen.found.push(found);
        }
        Ok(seen)
    }

    fn event_state(&mut self) -> Result<EventState> {
        // Each of these is found at an end of the table.
        Ok(self
            .db
            .prepare_cached(
                "SELECT bytes, coalesce((SELECT min(row) FROM events), 0),
                 coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0),
                 pruned, pruned_unsent, sent_through, resend_after, sent FROM event_state",
            )?
            .query_row([], |row| {
                Ok(EventState {
                    bytes: unsigned(row, 0)?,
                    oldest: unsigned(row, 1)?,
                    newest: unsigned(row, 2)?,
                    pruned: unsigned(row, 3)?,
                    pruned_unsent: unsigned(row, 4)?,
                    sent_through: unsigned(row, 5)?,
                    resend_after: unsigned(row, 6)?,
                    sent: unsigned(row, 7)?,
                })
            })?)
    }

    fn event_received(&mut self, row: u64) -> Result<Option<f64>> {
        Ok(self
            .db
            .prepare_cached("SELECT received FROM events WHERE row >= ?1 ORDER BY row LIMIT 1")?
            .query_row([saturate(row)], |row| row.get(0))
            .optional()?)
    }

    fn events_sent(&mut self, through: u64, more: u64, resend_after: u64) -> Result<()> {
        self.db
            .prepare_cached(
                "UPDATE event_state SET sent_through = max(sent_through, ?1), sent = sent + ?2, resend_after = ?3",
            )?
            .execute(params![saturate(through), saturate(more), saturate(resend_after)])?;
        Ok(())
    }

    fn prune_events(&mut self, keep: u64, at_most: u32, owed: bool) -> Result<(u64, u64)> {
        let state = self.event_state()?;
        let mut over = state.bytes.saturating_sub(keep);
        if over == 0 {
            return Ok((0, 0));
        }
        let (mut last, mut unsent, mut freed) = (0, 0, 0);
        let mut statement = self
            .db
            .prepare_cached("SELECT row, bytes FROM events ORDER BY row LIMIT ?1")?;
        let mut rows = statement.query([at_most])?;
        while let Some(row) = rows.next()?
            && over > 0
            && freed < PRUNE_BYTES
        {
            let bytes = unsigned(row, 1)?;
            last = unsigned(row, 0)?;
            over = over.saturating_sub(bytes);
            freed += bytes;
            unsent += u64::from(owed && last > state.sent_through);
        }
        drop(rows);
        drop(statement);
        let deleted = self
            .db
            .prepare_cached("DELETE FROM events WHERE row <= ?1")?
            .execute([saturate(last)])?;
        if unsent > 0 {
            self.db
                .prepare_cached("UPDATE event_state SET pruned_unsent = pruned_unsent + ?1")?
                .execute([saturate(unsent)])?;
        }
        Ok((deleted as u64, unsent))
    }
}

/// The condition as text, with a question mark for each value.
fn condition(filter: &EventFilter, window: Window) -> (String, Vec<Value>) {
    let row = if filter.words.is_some() {
        "w.rowid BETWEEN ? AND ?"
    } else {
        "e.row BETWEEN ? AND ?"
    };
    let mut parts = vec![row];
    let mut values = vec![
        Value::Integer(saturate(window.first)),
        Value::Integer(saturate(window.last)),
    ];
    let mut push = |part: &'static str, value: Option<Value>| {
        if let Some(value) = value {
            parts.push(part);
            values.push(value);
        }
    };
    let text = |text: &Option<String>| text.clone().map(Value::Text);
    push("event_words MATCH ?", text(&filter.words));
    push(
        "e.severity >= ?",
        filter.severity.map(|n| Value::Integer(n.into())),
    );
    push("e.vendor = ? COLLATE NOCASE", text(&filter.vendor));
    push("e.product = ? COLLATE NOCASE", text(&filter.product));
    push("e.at >= ?", filter.since.map(Value::Real));
    push("e.at <= ?", filter.until.map(Value::Real));
    (parts.join(" AND "), values)
}

fn is_of(row: &Row<'_>, only: &Instances) -> bool {
    let text = |column: usize| {
        row.get_ref(column)
            .ok()
            .and_then(|value| value.as_str().ok())
    };
    text(1)
        .and_then(|identifier| only.get(identifier))
        .is_some_and(|instances| text(2).is_some_and(|instance| instances.contains(instance)))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Found> {
    let format: Option<u8> = row.get(8)?;
    let header = match format {
        Some(format) => Some(Header {
            format,
            vendor: row.get(9)?,
            product: row.get(10)?,
            version: row.get(11)?,
            signature: row.get(12)?,
            name: row.get(13)?,
        }),
        None => None,
    };
    Ok(Found {
        row: unsigned(row, 0)?,
        identifier: row.get(1)?,
        instance: row.get(2)?,
        received: row.get(6)?,
        event: Event {
            id: unsigned(row, 3)?,
            time: row.get(4)?,
            stored: row.get(5)?,
            agent: row.get(14)?,
            host: row.get(15)?,
            source: row.get(16)?,
            header,
            severity: row.get(7)?,
            line: row.get(17)?,
        },
    })
}

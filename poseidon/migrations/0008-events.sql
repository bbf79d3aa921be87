-- CEF events. `row` is the order of arrival and never repeats. An event outlives its device: it is evidence, and the SIEM may
-- not have it yet. What has come already is known by `instances.acked`, so no index over sequences is kept. `at` is `time`, or
-- when the event came where the device's clock was ahead of that. The line comes last: a search reads over what is before it.
CREATE TABLE events (
    row        INTEGER PRIMARY KEY AUTOINCREMENT,
    identifier TEXT NOT NULL,
    instance   TEXT NOT NULL,
    id         INTEGER NOT NULL,
    time       REAL NOT NULL,
    at         REAL NOT NULL,
    stored     REAL NOT NULL,
    received   REAL NOT NULL,
    severity   INTEGER,
    format     INTEGER,
    vendor     TEXT,
    product    TEXT,
    version    TEXT,
    signature  TEXT,
    name       TEXT,
    agent      TEXT NOT NULL,
    host       TEXT NOT NULL,
    source     TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    line       TEXT NOT NULL
) STRICT;

-- The words of events; the text itself is in `events` only.
CREATE VIRTUAL TABLE event_words USING fts5 (host, source, line, content = 'events', content_rowid = 'row');

-- One row: how much is stored, what was pruned, and how far the SIEM has it.
CREATE TABLE event_state (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    bytes         INTEGER NOT NULL DEFAULT 0,
    pruned        INTEGER NOT NULL DEFAULT 0,
    pruned_unsent INTEGER NOT NULL DEFAULT 0,
    sent_through  INTEGER NOT NULL DEFAULT 0,
    sent          INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO event_state (one) VALUES (1);

CREATE TRIGGER event_added AFTER INSERT ON events BEGIN
    INSERT INTO event_words (rowid, host, source, line) VALUES (new.row, new.host, new.source, new.line);
    UPDATE event_state SET bytes = bytes + new.bytes;
END;
CREATE TRIGGER event_pruned AFTER DELETE ON events BEGIN
    INSERT INTO event_words (event_words, rowid, host, source, line)
    VALUES ('delete', old.row, old.host, old.source, old.line);
    UPDATE event_state SET bytes = bytes - old.bytes, pruned = pruned + 1;
END;

-- What heartbeats said over time: for each instance and piece of time all its series in one value, so that a device costs one
-- row in half an hour (step 60 s) or in half a day (step 900 s), however often it reports.
CREATE TABLE metrics (
    identifier TEXT NOT NULL,
    instance   TEXT NOT NULL,
    step       INTEGER NOT NULL,
    start      INTEGER NOT NULL,
    data       BLOB NOT NULL,
    PRIMARY KEY (identifier, instance, step, start),
    FOREIGN KEY (identifier, instance) REFERENCES instances (identifier, instance) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX metrics_by_time ON metrics (step, start);

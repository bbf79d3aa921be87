-- Identifiers are kept as SHA-256 only: who reads the store cannot connect as a device.
CREATE TABLE identifiers (
    hash       TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    refused    INTEGER NOT NULL,
    created    REAL NOT NULL,
    attributes TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE instances (
    identifier TEXT NOT NULL REFERENCES identifiers (hash) ON DELETE CASCADE,
    instance   TEXT NOT NULL,
    plain      INTEGER NOT NULL,
    address    TEXT NOT NULL,
    since      REAL NOT NULL,
    last_seen  REAL NOT NULL,
    hello      TEXT,
    health     TEXT,
    health_at  REAL,
    PRIMARY KEY (identifier, instance)
) STRICT, WITHOUT ROWID;

-- A job outlives the device it ran on: no reference to it.
CREATE TABLE jobs (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    token        TEXT NOT NULL UNIQUE,
    identifier   TEXT NOT NULL,
    instance     TEXT NOT NULL,
    agent        TEXT NOT NULL,
    state        INTEGER NOT NULL,
    created      REAL NOT NULL,
    request      TEXT NOT NULL,
    result       TEXT,
    error        TEXT,
    stdout_bytes INTEGER NOT NULL DEFAULT 0,
    stderr_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX jobs_of_instance ON jobs (identifier, instance, seq);
CREATE INDEX jobs_open ON jobs (state) WHERE state < 2;

-- What is asked of many devices at once. `stopped` says why nothing more is started, `counts` what became of the members.
CREATE TABLE batches (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    id               TEXT NOT NULL UNIQUE,
    created          REAL NOT NULL,
    kind             TEXT NOT NULL,
    request          TEXT NOT NULL,
    selectors        TEXT NOT NULL,
    agents           TEXT NOT NULL,
    concurrency      INTEGER NOT NULL,
    canary           INTEGER NOT NULL,
    stop_on_failures INTEGER NOT NULL,
    queue            INTEGER NOT NULL,
    expires          REAL,
    total            INTEGER NOT NULL,
    stopped          TEXT,
    ended            REAL,
    counts           TEXT
) STRICT;

CREATE INDEX batches_open ON batches (seq) WHERE ended IS NULL;

-- A member's token is made with it and is that of its job, which is UNIQUE: whether it was started is whether there is
-- such a job, and none can be started twice. Without `state` the member has not ended.
CREATE TABLE batch_members (
    batch      INTEGER NOT NULL REFERENCES batches (seq) ON DELETE CASCADE,
    number     INTEGER NOT NULL,
    identifier TEXT NOT NULL,
    instance   TEXT NOT NULL,
    agent      TEXT NOT NULL,
    token      TEXT NOT NULL,
    started    INTEGER NOT NULL DEFAULT 0,
    state      TEXT,
    detail     TEXT,
    PRIMARY KEY (batch, number)
) STRICT, WITHOUT ROWID;

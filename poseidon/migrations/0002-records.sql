-- The last sequence that is stored. It stands here and not in the records, which are pruned.
ALTER TABLE instances ADD COLUMN acked INTEGER NOT NULL DEFAULT 0;

-- State -1: the job waits for its agent until `expires`. `journal` names the memory of the agent it was sent to.
ALTER TABLE jobs ADD COLUMN queue INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN expires REAL;
ALTER TABLE jobs ADD COLUMN journal TEXT;

-- `row` is the order of arrival and never repeats, so that a reader of all instances can go on where it was.
CREATE TABLE records (
    row        INTEGER PRIMARY KEY AUTOINCREMENT,
    identifier TEXT NOT NULL,
    instance   TEXT NOT NULL,
    id         INTEGER NOT NULL,
    token      TEXT NOT NULL,
    code       INTEGER NOT NULL,
    etime      REAL NOT NULL,
    ctime      REAL NOT NULL,
    received   REAL NOT NULL,
    data       TEXT NOT NULL,
    UNIQUE (identifier, instance, id),
    FOREIGN KEY (identifier, instance) REFERENCES instances (identifier, instance) ON DELETE CASCADE
) STRICT;

CREATE INDEX records_of_token ON records (token);
CREATE INDEX records_by_time ON records (ctime);

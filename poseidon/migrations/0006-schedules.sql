-- What the devices of an identifier run by their own clocks. One that was taken away stays as an empty list: devices that
-- are down now are to lose theirs too.
CREATE TABLE schedules (
    identifier TEXT NOT NULL PRIMARY KEY REFERENCES identifiers (hash) ON DELETE CASCADE,
    revision   TEXT NOT NULL,
    entries    TEXT NOT NULL,
    changed    REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- The revisions of each identifier's scripts. `revision` is made from the content, so one that was reverted to stands here twice.
CREATE TABLE revisions (
    identifier TEXT NOT NULL REFERENCES identifiers (hash) ON DELETE CASCADE,
    number     INTEGER NOT NULL,
    revision   TEXT NOT NULL,
    parent     TEXT,
    created    REAL NOT NULL,
    comment    TEXT NOT NULL,
    files      INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    PRIMARY KEY (identifier, number)
) STRICT, WITHOUT ROWID;

-- A file as it is in the revisions from `first` to `last`; without `last` it is in the current one. So a revision costs
-- what it changes, and not all its files again.
CREATE TABLE scripts (
    identifier TEXT NOT NULL REFERENCES identifiers (hash) ON DELETE CASCADE,
    path       TEXT NOT NULL,
    first      INTEGER NOT NULL,
    last       INTEGER,
    sha256     TEXT NOT NULL,
    size       INTEGER NOT NULL,
    mode       INTEGER NOT NULL,
    PRIMARY KEY (identifier, path, first)
) STRICT, WITHOUT ROWID;

CREATE INDEX scripts_of_blob ON scripts (sha256);

-- What an operator gave to an identifier. Without `value` the content is a blob.
CREATE TABLE named_data (
    identifier TEXT NOT NULL REFERENCES identifiers (hash) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    secret     INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    sha256     TEXT NOT NULL,
    changed    REAL NOT NULL,
    value      BLOB,
    UNIQUE (identifier, name)
) STRICT;

CREATE INDEX named_data_of_blob ON named_data (sha256) WHERE value IS NULL;

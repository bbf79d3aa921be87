-- Tokens of the API and sessions of the page, as SHA-256 only: who reads the store gets in nowhere.
CREATE TABLE tokens (
    name      TEXT PRIMARY KEY,
    hash      TEXT NOT NULL UNIQUE,
    role      TEXT NOT NULL,
    selectors TEXT NOT NULL,
    created   REAL NOT NULL,
    expires   REAL
) STRICT, WITHOUT ROWID;

-- `token` is the hash of the token that the session was made with: it ends with that.
CREATE TABLE sessions (
    hash    TEXT PRIMARY KEY,
    token   TEXT NOT NULL,
    created REAL NOT NULL,
    used    REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- What was done by whom. A row is written before the act; `status` and what else is known follow once, when it is over.
CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    time    REAL NOT NULL,
    who     TEXT NOT NULL,
    role    TEXT NOT NULL,
    address TEXT NOT NULL,
    act     TEXT NOT NULL,
    target  TEXT NOT NULL,
    detail  TEXT NOT NULL,
    allowed INTEGER NOT NULL,
    status  INTEGER
) STRICT;

CREATE TRIGGER audit_stays BEFORE UPDATE ON audit
WHEN OLD.status IS NOT NULL OR NEW.seq <> OLD.seq OR NEW.time <> OLD.time OR NEW.who <> OLD.who OR NEW.role <> OLD.role
    OR NEW.address <> OLD.address OR NEW.act <> OLD.act OR NEW.allowed <> OLD.allowed
BEGIN
    SELECT RAISE(ABORT, 'what is in the audit log stays as it is');
END;

-- Id of the key that a secret is encrypted with; without it the value is plain.
ALTER TABLE named_data ADD COLUMN key TEXT;

-- Whether pages that once held plain secrets were written over.
CREATE TABLE scrubbed (
    done INTEGER NOT NULL
) STRICT;
INSERT INTO scrubbed VALUES (0);

-- Keys of devices, Ed25519 in base64. Without an instance a key is pinned: the identifier is for pinned keys only. With one
-- it is the key that this instance showed first, which it is held to while nothing is pinned.
CREATE TABLE device_keys (
    identifier TEXT NOT NULL REFERENCES identifiers (hash) ON DELETE CASCADE,
    instance   TEXT NOT NULL,
    key        TEXT NOT NULL,
    since      REAL NOT NULL,
    PRIMARY KEY (identifier, instance, key)
) STRICT, WITHOUT ROWID;

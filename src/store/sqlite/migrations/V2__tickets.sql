-- Single-use entries of browsers; only hashes of their secrets are kept. token_id is empty where authentication was off.
CREATE TABLE tickets (
    hash BLOB NOT NULL PRIMARY KEY,
    token_id TEXT NOT NULL,
    path TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX tickets_by_expiry ON tickets (expires_at);

-- Single-use entries of browsers; only hashes of their secrets are kept. token_id is empty where authentication was off.
CREATE TABLE tickets (
    hash bytea PRIMARY KEY,
    token_id text NOT NULL,
    path text NOT NULL,
    expires_at bigint NOT NULL
);

CREATE INDEX tickets_by_expiry ON tickets (expires_at);

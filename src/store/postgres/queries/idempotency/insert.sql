-- Waits for a transaction that is inserting the same key. No row inserted: that one won.
INSERT INTO idempotency (scope, key, body_sha256, job, created_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (scope, key) DO NOTHING

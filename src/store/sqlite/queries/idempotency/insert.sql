INSERT INTO idempotency (scope, key, body_sha256, job, created_at)
VALUES (?1, ?2, ?3, ?4, ?5)

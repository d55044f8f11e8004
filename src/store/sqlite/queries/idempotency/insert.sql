INSERT INTO idempotency (scope, key, body_sha256, job)
VALUES (?1, ?2, ?3, ?4)

SELECT body_sha256, job
FROM idempotency
WHERE scope = ?1 AND key = ?2

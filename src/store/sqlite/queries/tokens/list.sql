SELECT id, name, hash, scopes, queues, created_at, expires_at
FROM tokens
WHERE revoked_at IS NULL
ORDER BY created_at, id

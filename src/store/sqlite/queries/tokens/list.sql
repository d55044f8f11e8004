SELECT id, name, hash, scopes, queues, created_at, expires_at
FROM tokens
ORDER BY created_at, id

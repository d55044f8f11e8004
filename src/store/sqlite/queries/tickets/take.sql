DELETE FROM tickets
WHERE hash = ?1
RETURNING token_id, path, expires_at

INSERT INTO tickets (hash, token_id, path, expires_at) VALUES ($1, $2, $3, $4)

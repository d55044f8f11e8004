SELECT id, run, url, created_at, due_at, attempts, last_error, delivered_at, given_up_at
FROM events WHERE job = $1 AND url IS NOT NULL ORDER BY run DESC LIMIT $2

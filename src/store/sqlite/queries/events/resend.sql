UPDATE events
SET due_at = ?3, claim = claim + 1, attempts = 0, since = NULL, last_error = NULL, delivered_at = NULL, given_up_at = NULL
WHERE job = ?1 AND id = ?2 AND url IS NOT NULL
RETURNING id, run, url, created_at, due_at, attempts, last_error, delivered_at, given_up_at

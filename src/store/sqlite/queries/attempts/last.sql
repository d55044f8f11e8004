SELECT attempt, cause, worker, error, at FROM attempts
WHERE job = ?1 AND run = ?2 AND task = ?3 ORDER BY attempt DESC LIMIT 1

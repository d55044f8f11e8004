SELECT task, substr(coalesce(error, ''), 1, ?4), worker, at FROM outcomes
WHERE job = ?1 AND run = ?2 AND succeeded = 0 ORDER BY task LIMIT ?3

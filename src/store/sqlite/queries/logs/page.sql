SELECT id, at, level, source, worker, task, message FROM logs
WHERE job = ?1 AND id > ?2 AND level >= ?3 ORDER BY id LIMIT ?4

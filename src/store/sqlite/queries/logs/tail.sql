-- The newest entries, newest first.
SELECT id, at, level, source, worker, task, message FROM logs
WHERE job = ?1 AND level >= ?2 ORDER BY id DESC LIMIT ?3

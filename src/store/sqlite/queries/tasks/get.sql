SELECT key, payload
FROM tasks
WHERE job = ?1 AND task = ?2

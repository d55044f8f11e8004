SELECT task
FROM tasks
WHERE job = ?1 AND key = ?2

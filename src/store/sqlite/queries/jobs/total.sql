SELECT total, queue_id
FROM jobs
WHERE id = ?1

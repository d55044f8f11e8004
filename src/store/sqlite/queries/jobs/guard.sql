SELECT state, run, changed_seq
FROM jobs
WHERE id = ?1 AND queue_id = ?2

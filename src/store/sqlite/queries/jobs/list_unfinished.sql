-- The list of states is written as the partial index has it, or SQLite would not use the index.
SELECT id
FROM jobs
WHERE queue_id = ?1
    AND id > ?2
    AND state IN ('pending', 'running', 'paused', 'canceling')
    AND (state <> 'pending' OR start_at IS NOT NULL)
ORDER BY id
LIMIT ?3

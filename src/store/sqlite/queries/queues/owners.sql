-- The list of states is written as the partial index has it, or SQLite would not use the index.
SELECT q.queue, q.queue_id, q.epoch, n.node,
    EXISTS (
        SELECT 1
        FROM jobs
        WHERE jobs.queue_id = q.queue_id
            AND state IN ('pending', 'running', 'paused', 'canceling')
            AND (state <> 'pending' OR start_at IS NOT NULL)
    ) AS busy
FROM queue_owner AS q
LEFT JOIN nodes AS n ON n.node = q.node AND n.gone = 0 AND n.seen_at + n.lease_s * 1000 > ?1
ORDER BY q.queue_id

SELECT id FROM jobs
WHERE queue_id = $1 AND id > $2 AND (
    -- states: ACTIVE
    state IN ('running', 'paused', 'canceling')
    OR (state = 'pending' AND start_at IS NOT NULL)
)
ORDER BY id LIMIT $3::bigint

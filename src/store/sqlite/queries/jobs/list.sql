-- Lists (?1 states, ?3 queues) are JSON arrays; a null parameter means "any".
SELECT jobs.id, jobs.name, owner.queue, jobs.queue_id, jobs.state, jobs.run, jobs.base_run, jobs.priority, jobs.open,
    jobs.expected_total, jobs.stages, jobs.policy, jobs.labels, jobs.callback_url, jobs.total, jobs.succeeded, jobs.failed,
    jobs.counters, jobs.error, jobs.start_at, jobs.cancel_at, jobs.created_at, jobs.started_at, jobs.finished_at,
    jobs.updated_at, jobs.changed_seq, jobs.reached
FROM jobs
JOIN queue_owner AS owner ON owner.queue_id = jobs.queue_id
WHERE jobs.id < ?7
    AND (?1 IS NULL OR jobs.state IN (SELECT value FROM json_each(?1)))
    AND (?2 IS NULL OR owner.queue = ?2)
    AND (?3 IS NULL OR owner.queue IN (SELECT value FROM json_each(?3)))
    AND (?4 IS NULL OR EXISTS (SELECT 1 FROM json_each(jobs.labels) AS label WHERE label.key = ?4 AND label.value = ?5))
    AND (?6 IS NULL OR instr(jobs.name_folded, ?6) > 0)
ORDER BY jobs.id DESC
LIMIT ?8

SELECT jobs.id, jobs.name, owner.queue, jobs.queue_id, jobs.state, jobs.run, jobs.base_run, jobs.priority, jobs.open,
    jobs.expected_total, jobs.stages, jobs.policy, jobs.labels, jobs.callback_url, jobs.total, jobs.succeeded, jobs.failed,
    jobs.counters, jobs.error, jobs.start_at, jobs.cancel_at, jobs.created_at, jobs.started_at, jobs.finished_at,
    jobs.updated_at, jobs.changed_seq, jobs.reached
FROM jobs
JOIN queue_owner AS owner ON owner.queue_id = jobs.queue_id
WHERE jobs.id = ?1

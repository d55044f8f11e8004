SELECT id, name, queue, queue_id, state, run, base_run, priority, open, expected_total, stages, policy, labels::text AS labels,
       callback_url, total, succeeded, failed, counters, error_code, error_message, start_at, cancel_at, created_at, started_at,
       finished_at, updated_at, changed_seq, reached
FROM jobs WHERE id = $1

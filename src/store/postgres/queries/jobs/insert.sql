INSERT INTO jobs (name, queue, queue_id, state, run, base_run, priority, open, expected_total, stages, policy, labels, callback_url,
                  total, succeeded, failed, counters, start_at, created_at, started_at, finished_at, updated_at, changed_seq)
VALUES ($1, $2, $3, $4, 1, 1, $5, $6, $7, $8, $9, $10::text::jsonb, $11, $12, 0, 0, '{}', $13, $14, $15, $16, $14, 0)
RETURNING id

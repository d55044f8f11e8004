SELECT id, name, queue, queue_id, state, run, base_run, priority, open, expected_total, stages, policy, labels::text AS labels,
       callback_url, total, succeeded, failed, counters, error_code, error_message, start_at, cancel_at, created_at, started_at,
       finished_at, updated_at, changed_seq, reached
FROM jobs
WHERE ($1::text[] IS NULL OR state = ANY ($1))
  AND ($2::text IS NULL OR queue = $2)
  AND ($3::text[] IS NULL OR queue = ANY ($3))
  AND ($4::text IS NULL OR labels @> jsonb_build_object($4::text, $5::text))
  AND ($6::text IS NULL OR strpos(lower(name), lower($6)) > 0)
  AND ($7::bigint IS NULL OR id < $7)
ORDER BY id DESC LIMIT $8::bigint

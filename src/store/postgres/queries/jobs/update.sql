-- The one statement that writes states: guarded by the state and run it was decided on. A row that does not come back was elsewhere, or
-- is locked by a transaction that is none of ours: the other jobs of the group must not wait for that.
WITH free AS MATERIALIZED (SELECT id FROM jobs WHERE id = ANY ($1::bigint[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
UPDATE jobs j SET
    state = u.state, run = u.run, base_run = u.base_run, open = u.open,
    succeeded = u.succeeded, failed = u.failed, counters = u.counters,
    error_code = u.error_code, error_message = u.error_message,
    start_at = u.start_at, cancel_at = u.cancel_at, started_at = u.started_at, finished_at = u.finished_at,
    updated_at = u.updated_at, changed_seq = u.changed_seq, reached = u.reached, priority = u.priority, policy = u.policy
FROM unnest(
    $1::bigint[], $2::integer[], $3::text[], $4::integer[],
    $5::text[], $6::integer[], $7::integer[], $8::boolean[],
    $9::bigint[], $10::bigint[], $11::bigint[], $12::text[],
    $13::text[], $14::text[],
    $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[],
    $19::bigint[], $20::bigint[], $21::text[], $22::integer[], $23::text[]
) AS u (
    id, queue_id, from_states, from_run,
    state, run, base_run, open,
    total, succeeded, failed, counters,
    error_code, error_message,
    start_at, cancel_at, started_at, finished_at,
    updated_at, changed_seq, reached, priority, policy
)
WHERE j.id = u.id AND j.id IN (SELECT id FROM free) AND j.queue_id = u.queue_id AND j.run = u.from_run
    AND j.state = ANY (string_to_array(u.from_states, ','))
    -- A chunk of tasks that was appended behind this update's back: it was judged on too few tasks.
    AND j.total = u.total
RETURNING j.id

-- Goes from receiver to receiver, and looks only at the oldest events of those that have room: however much waits for one of them, the others
-- are found at once. What is picked is locked in a statement's part of its own, without waiting: a row that another claim got first is
-- looked at again, and is not due any more.
WITH RECURSIVE under_way AS MATERIALIZED (
    SELECT * FROM unnest($5::text[], $6::bigint[]) AS u (receiver, calls)
), receivers (receiver) AS (
    (SELECT receiver FROM events WHERE due_at IS NOT NULL ORDER BY receiver LIMIT 1)
    UNION ALL
    SELECT (SELECT e.receiver FROM events e WHERE e.due_at IS NOT NULL AND e.receiver > r.receiver ORDER BY e.receiver LIMIT 1)
    FROM receivers r WHERE r.receiver IS NOT NULL
), free AS MATERIALIZED (
    SELECT r.receiver, $4::bigint - coalesce(u.calls, 0) AS room
    FROM receivers r LEFT JOIN under_way u ON u.receiver = r.receiver
    WHERE r.receiver IS NOT NULL AND coalesce(u.calls, 0) < $4::bigint
), picked AS MATERIALIZED (
    SELECT d.id
    FROM free f CROSS JOIN LATERAL (
        SELECT o.id, o.due_at, row_number() OVER (ORDER BY o.due_at, o.id) AS place
        FROM (
            SELECT e.id, e.due_at FROM events e
            WHERE e.receiver = f.receiver AND e.due_at <= $1::bigint ORDER BY e.due_at, e.id LIMIT f.room
        ) o
    ) d
    -- Its place behind the calls under way: receivers that hang keep what they have, and get more only after those that have less.
    ORDER BY d.place - f.room, d.due_at, d.id LIMIT $3::bigint
), locked AS MATERIALIZED (
    SELECT id FROM events WHERE id IN (SELECT id FROM picked) AND due_at <= $1::bigint ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE events e
SET due_at = $2::bigint, claim = e.claim + 1, attempts = e.attempts + 1, since = coalesce(e.since, $1::bigint)
FROM locked WHERE e.id = locked.id
RETURNING e.id, e.job, e.run, e.payload, e.url, e.receiver, e.claim, e.attempts, e.since

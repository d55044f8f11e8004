-- What is picked is locked in a statement's part of its own, without waiting: a row that another claim got first is looked at again, and
-- is not due any more. The pick looks at a bounded number of rows; receivers that have no room are passed over before they are counted.
WITH under_way AS MATERIALIZED (
    SELECT * FROM unnest($5::text[], $6::bigint[]) AS u (receiver, calls)
), oldest AS MATERIALIZED (
    SELECT id, receiver, due_at FROM events
    WHERE due_at <= $1::bigint AND receiver NOT IN (SELECT receiver FROM under_way WHERE calls >= $4::bigint)
    ORDER BY due_at, id LIMIT 1000
), placed AS (
    SELECT o.id, o.due_at, $4::bigint - coalesce(u.calls, 0) AS room,
           row_number() OVER (PARTITION BY o.receiver ORDER BY o.due_at, o.id) AS place
    FROM oldest o LEFT JOIN under_way u ON u.receiver = o.receiver
), picked AS MATERIALIZED (
    SELECT id FROM placed WHERE place <= room ORDER BY due_at, id LIMIT $3::bigint
), locked AS MATERIALIZED (
    SELECT id FROM events WHERE id IN (SELECT id FROM picked) AND due_at <= $1::bigint ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE events e
SET due_at = $2::bigint, claim = e.claim + 1, attempts = e.attempts + 1, since = coalesce(e.since, $1::bigint)
FROM locked WHERE e.id = locked.id
RETURNING e.id, e.job, e.run, e.payload, e.url, e.receiver, e.claim, e.attempts, e.since

-- Goes from receiver to receiver, and looks only at the oldest events of those that have room: however much waits for one of them, the others
-- are found at once. ?5 are the calls under way, as a JSON object by receiver.
WITH RECURSIVE under_way AS MATERIALIZED (
    SELECT key AS receiver, value AS calls FROM json_each(?5)
), receivers (receiver) AS (
    SELECT (SELECT receiver FROM events WHERE due_at IS NOT NULL ORDER BY receiver LIMIT 1)
    UNION ALL
    SELECT (SELECT e.receiver FROM events e WHERE e.due_at IS NOT NULL AND e.receiver > r.receiver ORDER BY e.receiver LIMIT 1)
    FROM receivers r WHERE r.receiver IS NOT NULL
), free AS MATERIALIZED (
    SELECT r.receiver, ?4 - coalesce(u.calls, 0) AS room
    FROM receivers r LEFT JOIN under_way u ON u.receiver = r.receiver
    WHERE r.receiver IS NOT NULL AND coalesce(u.calls, 0) < ?4
), placed AS (
    SELECT e.id, e.due_at, f.room, row_number() OVER (PARTITION BY f.receiver ORDER BY e.due_at, e.id) AS place
    FROM free f CROSS JOIN events e ON e.id IN (
        SELECT d.id FROM events d WHERE d.receiver = f.receiver AND d.due_at <= ?1 ORDER BY d.due_at, d.id LIMIT ?4
    )
), picked AS MATERIALIZED (
    -- Its place behind the calls under way: receivers that hang keep what they have, and get more only after those that have less.
    SELECT id FROM placed WHERE place <= room ORDER BY place - room, due_at, id LIMIT ?3
)
UPDATE events
SET due_at = ?2, claim = claim + 1, attempts = attempts + 1, since = coalesce(since, ?1)
WHERE id IN (SELECT id FROM picked)
RETURNING id, job, run, payload, url, receiver, claim, attempts, since

-- ?5 are the calls under way, as a JSON object by receiver. The pick looks at a bounded number of rows; receivers that have no room are
-- passed over before they are counted.
WITH under_way AS MATERIALIZED (
    SELECT key AS receiver, value AS calls FROM json_each(?5)
), oldest AS MATERIALIZED (
    SELECT id, receiver, due_at FROM events
    WHERE due_at <= ?1 AND receiver NOT IN (SELECT receiver FROM under_way WHERE calls >= ?4)
    ORDER BY due_at, id LIMIT 1000
), placed AS (
    SELECT o.id, o.due_at, ?4 - coalesce(u.calls, 0) AS room,
        row_number() OVER (PARTITION BY o.receiver ORDER BY o.due_at, o.id) AS place
    FROM oldest o LEFT JOIN under_way u ON u.receiver = o.receiver
), picked AS MATERIALIZED (
    SELECT id FROM placed WHERE place <= room ORDER BY due_at, id LIMIT ?3
)
UPDATE events
SET due_at = ?2, claim = claim + 1, attempts = attempts + 1, since = coalesce(since, ?1)
WHERE id IN (SELECT id FROM picked)
RETURNING id, job, run, payload, url, receiver, claim, attempts, since

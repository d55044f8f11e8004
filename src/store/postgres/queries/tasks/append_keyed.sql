-- As append.sql, less the tasks whose key the job holds. The lateral subquery with a limit cannot be turned into a hash join over all
-- of the job's tasks: a chunk costs its own index lookups however large the job is.
WITH fresh AS (
    SELECT t.key, t.payload, row_number() OVER (ORDER BY t.place) AS place
    FROM unnest($4::text[], $5::text[]) WITH ORDINALITY AS t (key, payload, place)
    LEFT JOIN LATERAL (
        SELECT true AS present FROM tasks o WHERE o.job = $1::bigint AND o.key = t.key LIMIT 1
    ) old ON true
    WHERE old.present IS NULL
), moved AS (
    UPDATE jobs SET total = total + (SELECT count(*) FROM fresh)
    WHERE id = $1::bigint AND queue_id = $2::integer AND total = $3::integer
    RETURNING id
), added AS (
    INSERT INTO tasks (job, task, key, payload)
    SELECT moved.id, $3::integer + (fresh.place - 1)::integer, fresh.key, fresh.payload
    FROM moved, fresh
    RETURNING 1
)
SELECT (SELECT count(*) FROM moved) AS moved, (SELECT count(*) FROM added) AS added

-- One look-up per key, by the index, whatever the statistics say.
SELECT DISTINCT wanted.key, one.task
FROM unnest($2::text[]) AS wanted (key)
CROSS JOIN LATERAL (
    SELECT task FROM tasks WHERE job = $1 AND key = wanted.key LIMIT 1
) one
ORDER BY one.task

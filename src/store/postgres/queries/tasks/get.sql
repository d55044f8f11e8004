-- One look-up per task, by the whole key: a plan made before the table has statistics must not read the job's every task instead.
-- Stops after the row that passes the given bytes of payload; lengths are read without fetching the payloads behind them.
SELECT t.task, t.key, t.payload
FROM (
    SELECT one.task, one.key, one.payload,
           sum(octet_length(one.payload)) OVER (ORDER BY one.task ROWS UNBOUNDED PRECEDING) - octet_length(one.payload) AS bytes_before
    FROM unnest($2::integer[]) AS wanted (task)
    CROSS JOIN LATERAL (
        SELECT task, key, payload FROM tasks WHERE job = $1 AND task = wanted.task LIMIT 1
    ) one
) t
WHERE t.bytes_before <= $3::bigint
ORDER BY t.task

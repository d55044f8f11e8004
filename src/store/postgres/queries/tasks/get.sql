-- Stops after the row that passes the given bytes of payload; lengths are read without fetching the payloads behind them.
SELECT t.task, t.key, t.payload
FROM (
    SELECT task, key, payload,
           sum(octet_length(payload)) OVER (ORDER BY task ROWS UNBOUNDED PRECEDING) - octet_length(payload) AS bytes_before
    FROM tasks WHERE job = $1 AND task = ANY ($2::integer[])
) t
WHERE t.bytes_before <= $3::bigint
ORDER BY t.task

-- $1 job, $2 base run, $3 run, $4 verdict or null, $5 after task, $6 limit, $7 bytes. One row per task: the latest standing success, else
-- the failure of the current run, else a late result. Each run gives its first rows only: a page never reads a whole job.
WITH counted AS (
    SELECT c.* FROM generate_series($2::integer, $3::integer) AS r (run)
    CROSS JOIN LATERAL (
        SELECT o.run, o.task, o.succeeded, false AS late, o.attempt, o.result, o.blob_id, o.error, o.counters, o.worker, o.at,
               o.took_ms
        FROM outcomes o
        WHERE o.job = $1::bigint AND o.run = r.run AND o.task > $5::integer
          AND ($4::boolean IS NULL OR o.succeeded = $4)
          AND (o.succeeded OR (o.run = $3 AND NOT EXISTS (
              SELECT FROM generate_series($2, $3 - 1) AS e (run)
              CROSS JOIN LATERAL (
                  SELECT FROM outcomes s WHERE s.job = $1 AND s.run = e.run AND s.task = o.task AND s.succeeded LIMIT 1
              ) standing
          )))
        ORDER BY o.task LIMIT $6::bigint
    ) c
), uncounted AS (
    SELECT l.run, l.task, l.succeeded, true AS late, l.attempt, l.result, l.blob_id, l.error, l.counters, l.worker, l.at,
           l.took_ms
    FROM late l
    WHERE l.job = $1 AND l.run = $3 AND l.task > $5
      AND ($4 IS NULL OR l.succeeded = $4)
      AND NOT EXISTS (
          SELECT FROM generate_series($2, $3) AS e (run)
          CROSS JOIN LATERAL (
              SELECT FROM outcomes s
              WHERE s.job = $1 AND s.run = e.run AND s.task = l.task AND (s.succeeded OR s.run = $3) LIMIT 1
          ) decided
      )
    ORDER BY l.task LIMIT $6
), page AS (
    SELECT DISTINCT ON (task) * FROM (SELECT * FROM counted UNION ALL SELECT * FROM uncounted) every
    ORDER BY task, run DESC LIMIT $6
), measured AS (
    SELECT page.*, b.bytes AS blob_bytes, row_number() OVER (ORDER BY task) AS place,
           sum(coalesce(octet_length(result), b.bytes, 0)) OVER (ORDER BY task ROWS UNBOUNDED PRECEDING) AS bytes_so_far
    FROM page LEFT JOIN LATERAL (SELECT bytes FROM blobs WHERE id = blob_id LIMIT 1) b ON true
)
SELECT m.run, m.task, t.key, m.succeeded, m.late, m.attempt, m.result, m.blob_id, m.blob_bytes, m.error, m.counters, m.worker, m.at,
       m.took_ms
-- Laterally, so that each key is one look-up: where the statistics do not know the job yet, a plain join reads all its tasks per row.
FROM measured m LEFT JOIN LATERAL (SELECT key FROM tasks WHERE job = $1 AND task = m.task LIMIT 1) t ON true
WHERE m.bytes_so_far <= $7::bigint OR m.place = 1
ORDER BY m.task

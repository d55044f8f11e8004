-- ?1 job, ?2 base run, ?3 new run, ?4 the position of the update that starts it. Of several late successes of a task the latest counts.
INSERT INTO outcomes (job, task, run, seq, succeeded, attempt, at, worker, counters, error, result, took_ms, blob_id)
SELECT job, task, ?3, ?4 + 1 + row_number() OVER (ORDER BY task), succeeded, attempt, at, worker, counters, error, result,
    took_ms, blob_id
FROM late
WHERE job = ?1
    AND run >= ?2
    AND run < ?3
    AND succeeded
    AND NOT EXISTS (
        SELECT 1
        FROM late AS later
        WHERE later.job = late.job AND later.task = late.task AND later.run > late.run AND later.run < ?3
            AND later.succeeded
    )
    AND NOT EXISTS (
        SELECT 1
        FROM outcomes AS standing
        WHERE standing.job = late.job AND standing.task = late.task AND standing.run >= ?2 AND standing.run <= ?3
            AND standing.succeeded
    )
ON CONFLICT (job, task, run) DO NOTHING

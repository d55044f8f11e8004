-- Every row that may speak for a task in the current view, in order of the task; the caller picks one per task.
-- ?1 job, ?2 after this task, ?3 base run, ?4 run
SELECT task, run, 0 AS late, succeeded, attempt, at, worker, counters, error, result, took_ms,
    (SELECT key FROM tasks WHERE tasks.job = outcomes.job AND tasks.task = outcomes.task) AS key,
    blob_id, (SELECT bytes FROM blobs WHERE id = blob_id) AS blob_bytes
FROM outcomes
WHERE job = ?1 AND task > ?2 AND run >= ?3 AND run <= ?4 AND (succeeded OR run = ?4)
UNION ALL
SELECT task, run, 1, succeeded, attempt, at, worker, counters, error, result, took_ms,
    (SELECT key FROM tasks WHERE tasks.job = late.job AND tasks.task = late.task),
    blob_id, (SELECT bytes FROM blobs WHERE id = blob_id)
FROM late
WHERE job = ?1 AND task > ?2 AND run = ?4
ORDER BY task, run

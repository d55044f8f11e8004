INSERT INTO late (job, task, run, seq, succeeded, attempt, at, worker, counters, error, result, took_ms, blob_id)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
ON CONFLICT (job, task, run) DO UPDATE SET
    seq = excluded.seq,
    succeeded = excluded.succeeded,
    attempt = excluded.attempt,
    at = excluded.at,
    worker = excluded.worker,
    counters = excluded.counters,
    error = excluded.error,
    result = excluded.result,
    took_ms = excluded.took_ms,
    blob_id = excluded.blob_id
WHERE NOT succeeded AND excluded.succeeded

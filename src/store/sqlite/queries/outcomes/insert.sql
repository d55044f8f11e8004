INSERT INTO outcomes (job, task, run, seq, verdict, attempt, at, worker, counters, error, result)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
ON CONFLICT (job, task, run) DO UPDATE SET
    seq = excluded.seq,
    verdict = excluded.verdict,
    attempt = excluded.attempt,
    at = excluded.at,
    worker = excluded.worker,
    counters = excluded.counters,
    error = excluded.error,
    result = excluded.result
WHERE verdict = 'failed' AND excluded.verdict = 'succeeded'

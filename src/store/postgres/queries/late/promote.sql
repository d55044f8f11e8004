-- Late successes of the runs that still stand become outcomes of the new run, with seqs of their own after the retry's. Runs are
-- looked up one by one: a range of runs would read every outcome of the job for each late row.
INSERT INTO outcomes (job, run, task, succeeded, attempt, seq, result, error, counters, worker, at, took_ms, blob_id)
SELECT u.job, u.run, l.task, true, l.attempt, u.changed_seq + 1 + row_number() OVER (PARTITION BY u.job ORDER BY l.task),
       l.result, l.error, l.counters, l.worker, l.at, l.took_ms, l.blob_id
FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::bigint[]) AS u (job, base_run, run, changed_seq)
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (x.task) x.*
    FROM late x
    WHERE x.job = u.job AND x.run >= u.base_run AND x.run < u.run AND x.succeeded
      AND NOT EXISTS (
          SELECT FROM generate_series(u.base_run, u.run) AS r (run)
          CROSS JOIN LATERAL (
              SELECT FROM outcomes o WHERE o.job = u.job AND o.run = r.run AND o.task = x.task AND o.succeeded LIMIT 1
          ) standing
      )
    ORDER BY x.task, x.run DESC
) l
ON CONFLICT (job, run, task) DO NOTHING

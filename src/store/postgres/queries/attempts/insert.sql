INSERT INTO attempts (job, run, task, attempt, seq, cause, error, worker, at)
SELECT * FROM unnest(
    $1::bigint[], $2::integer[], $3::integer[], $4::integer[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::bigint[]
)
ON CONFLICT (job, run, task, attempt) DO NOTHING

INSERT INTO late AS o (job, run, task, succeeded, attempt, seq, result, error, counters, worker, at, took_ms, blob_id)
SELECT * FROM unnest(
    $1::bigint[], $2::integer[], $3::integer[], $4::boolean[], $5::integer[], $6::bigint[],
    $7::text[], $8::text[], $9::text[], $10::text[], $11::bigint[], $12::integer[], $13::bigint[]
)
ON CONFLICT (job, run, task) DO UPDATE SET
    succeeded = excluded.succeeded, attempt = excluded.attempt, seq = excluded.seq, result = excluded.result,
    error = excluded.error, counters = excluded.counters, worker = excluded.worker, at = excluded.at,
    took_ms = excluded.took_ms,
    blob_id = excluded.blob_id
WHERE NOT o.succeeded AND excluded.succeeded

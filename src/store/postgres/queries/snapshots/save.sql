INSERT INTO snapshots AS s (job, seq, version, bytes)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[])
ON CONFLICT (job) DO UPDATE SET seq = excluded.seq, version = excluded.version, bytes = excluded.bytes
WHERE s.version < excluded.version

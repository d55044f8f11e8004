INSERT INTO events (id, job, run, kind, payload, created_at, url, receiver, due_at)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::integer[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::bigint[])
ON CONFLICT (id) DO NOTHING

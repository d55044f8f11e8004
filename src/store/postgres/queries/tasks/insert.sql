INSERT INTO tasks (job, task, key, payload)
SELECT $1::bigint, $2::integer + (t.place - 1)::integer, t.key, t.payload
FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS t (key, payload, place)

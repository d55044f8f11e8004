-- Moves the total first: the row lock makes two appends go one after the other, and the guard lets only one of them through.
WITH moved AS (
    UPDATE jobs SET total = total + cardinality($4::text[])
    WHERE id = $1::bigint AND queue_id = $2::integer AND total = $3::integer
    RETURNING id
), added AS (
    INSERT INTO tasks (job, task, payload)
    SELECT moved.id, $3::integer + (t.place - 1)::integer, t.payload
    FROM moved, unnest($4::text[]) WITH ORDINALITY AS t (payload, place)
    RETURNING 1
)
SELECT (SELECT count(*) FROM moved) AS moved, (SELECT count(*) FROM added) AS added

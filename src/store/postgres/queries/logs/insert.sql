-- In the order given, so that numbers rise in it. Entries of a job that is gone are left out.
INSERT INTO logs (job, at, level, source, worker, task, message)
SELECT e.job, e.at, e.level, e.source, e.worker, e.task, e.message
FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::text[], $5::text[], $6::bigint[], $7::text[])
    WITH ORDINALITY AS e (job, at, level, source, worker, task, message, place)
WHERE EXISTS (SELECT FROM jobs WHERE jobs.id = e.job)
ORDER BY e.place

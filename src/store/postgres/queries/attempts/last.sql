SELECT DISTINCT ON (task) task, attempt, cause, worker, error, at FROM attempts
WHERE job = $1 AND run = $2 AND task = ANY ($3::integer[]) ORDER BY task, attempt DESC

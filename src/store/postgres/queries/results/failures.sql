SELECT task, left(coalesce(error, ''), $4::integer) AS error, worker, at FROM outcomes
WHERE job = $1 AND run = $2 AND NOT succeeded ORDER BY task LIMIT $3::bigint

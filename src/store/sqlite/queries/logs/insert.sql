-- An entry of a job that is gone is left out.
INSERT INTO logs (job, at, level, source, worker, task, message)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
WHERE EXISTS (SELECT 1 FROM jobs WHERE id = ?1)

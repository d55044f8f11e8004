INSERT INTO attempts (job, task, run, attempt, seq, cause, at, worker, error)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (job, task, run, attempt) DO NOTHING

INSERT INTO tasks (job, task, key, payload)
VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (job, key) WHERE key IS NOT NULL DO NOTHING

INSERT INTO events (id, job, run, kind, payload, created_at, url, receiver, due_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (id) DO NOTHING

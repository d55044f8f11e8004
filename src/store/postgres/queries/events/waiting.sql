SELECT count(*) AS waiting, min(due_at) AS next FROM events WHERE due_at IS NOT NULL

SELECT count(*) AS waiting FROM (SELECT 1 FROM events WHERE due_at IS NOT NULL LIMIT 100000) AS counted

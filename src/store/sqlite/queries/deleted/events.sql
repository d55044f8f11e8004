DELETE FROM events WHERE id IN (SELECT id FROM events WHERE job = ?1 AND due_at IS NULL LIMIT ?2)

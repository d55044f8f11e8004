SELECT due_at FROM events WHERE due_at > ?1 AND due_at > 0 ORDER BY due_at LIMIT 1

UPDATE events
SET due_at = ?3, delivered_at = ?4, given_up_at = ?5, last_error = ?6
WHERE id = ?1 AND claim = ?2

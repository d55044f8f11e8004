UPDATE events
SET due_at = $3::bigint, delivered_at = $4::bigint, given_up_at = $5::bigint, last_error = $6::text
WHERE id = $1 AND claim = $2

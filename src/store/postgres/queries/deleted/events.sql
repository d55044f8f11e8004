DELETE FROM events WHERE ctid = ANY (ARRAY(SELECT ctid FROM events WHERE job = $1 AND due_at IS NULL LIMIT $2::bigint))

DELETE FROM tasks WHERE ctid = ANY (ARRAY(SELECT ctid FROM tasks WHERE job = $1 LIMIT $2::bigint))

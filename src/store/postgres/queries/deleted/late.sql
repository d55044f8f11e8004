DELETE FROM late WHERE ctid = ANY (ARRAY(SELECT ctid FROM late WHERE job = $1 LIMIT $2::bigint))

DELETE FROM logs WHERE ctid = ANY (ARRAY(SELECT ctid FROM logs WHERE job = $1 LIMIT $2::bigint))

UPDATE queue_owner SET node = NULL, incarnation = NULL WHERE node = $1 AND incarnation = $2

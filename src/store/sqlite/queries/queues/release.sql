UPDATE queue_owner
SET node = NULL, incarnation = NULL
WHERE node = ?1 AND incarnation = ?2 AND (?3 IS NULL OR queue_id = ?3)

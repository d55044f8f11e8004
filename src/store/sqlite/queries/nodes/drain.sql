UPDATE nodes
SET draining = 1
WHERE node = ?1 AND incarnation = ?2 AND gone = 0

UPDATE nodes
SET gone = 1
WHERE node = ?1 AND incarnation = ?2

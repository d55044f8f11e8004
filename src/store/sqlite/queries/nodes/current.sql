SELECT 1
FROM nodes
WHERE node = ?1 AND incarnation = ?2 AND gone = 0

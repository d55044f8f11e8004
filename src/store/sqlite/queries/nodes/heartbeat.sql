UPDATE nodes
SET seen_at = ?4, lease_s = ?3
WHERE node = ?1 AND incarnation = ?2 AND gone = 0

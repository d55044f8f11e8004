UPDATE nodes
SET seen_at = ?5, lease_s = ?3, address = ?4
WHERE node = ?1 AND incarnation = ?2 AND gone = 0

SELECT node, incarnation, address, draining, seen_at + lease_s * 1000 - ?1 AS left_ms
FROM nodes
WHERE gone = 0 AND seen_at + lease_s * 1000 > ?1
ORDER BY node

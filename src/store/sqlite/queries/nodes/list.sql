SELECT node, incarnation, address, gone = 0 AND seen_at + lease_s * 1000 > ?1 AS alive, started_at, seen_at
FROM nodes
ORDER BY node

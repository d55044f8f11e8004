SELECT node, incarnation, address, draining, seen_at + lease_s * 1000::bigint - now_ms() AS left_ms
FROM nodes WHERE NOT gone AND seen_at + lease_s * 1000::bigint > now_ms() ORDER BY node

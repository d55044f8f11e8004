-- ?5 now, ?6 replace. Nothing changes if another living incarnation is in the way.
INSERT INTO nodes (node, incarnation, address, lease_s, started_at, seen_at, gone)
VALUES (?1, ?2, ?3, ?4, ?5, ?5, 0)
ON CONFLICT (node) DO UPDATE SET
    started_at = iif(incarnation = excluded.incarnation, started_at, excluded.started_at),
    incarnation = excluded.incarnation,
    address = excluded.address,
    lease_s = excluded.lease_s,
    seen_at = excluded.seen_at,
    gone = 0,
    draining = 0
WHERE ?6 OR incarnation = excluded.incarnation OR gone OR seen_at + lease_s * 1000 <= excluded.seen_at

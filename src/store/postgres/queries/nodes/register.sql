-- No row comes back if another living incarnation is in the way.
INSERT INTO nodes AS n (node, incarnation, address, lease_s, started_at, seen_at)
VALUES ($1, $2, $3, $4, now_ms(), now_ms())
ON CONFLICT (node) DO UPDATE SET
    incarnation = excluded.incarnation,
    address = excluded.address,
    lease_s = excluded.lease_s,
    started_at = CASE WHEN n.incarnation = excluded.incarnation THEN n.started_at ELSE excluded.started_at END,
    seen_at = excluded.seen_at,
    gone = false
WHERE $5::boolean
   OR n.incarnation = excluded.incarnation
   OR n.gone
   OR n.seen_at + n.lease_s * 1000::bigint <= now_ms()
RETURNING n.seen_at

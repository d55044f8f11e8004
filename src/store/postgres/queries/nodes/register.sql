-- No row comes back if another living incarnation is in the way. Each living one holds a lock of its own (hold.sql), so one whose lock
-- is free has died, whatever is left of its lease. But a restart of the server frees every lock: one that was seen last before it
-- may be alive still, and only its lease says when it is not.
WITH older AS (
    SELECT o.incarnation, pg_try_advisory_xact_lock($6::integer, hashtext(o.node || ' ' || o.incarnation)) AS has_died
    FROM nodes o
    WHERE o.node = $1 AND o.incarnation <> $2
      AND o.seen_at > floor(extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint
)
INSERT INTO nodes AS n (node, incarnation, address, lease_s, started_at, seen_at)
VALUES ($1, $2, $3, $4, now_ms(), now_ms())
ON CONFLICT (node) DO UPDATE SET
    incarnation = excluded.incarnation,
    address = excluded.address,
    lease_s = excluded.lease_s,
    started_at = CASE WHEN n.incarnation = excluded.incarnation THEN n.started_at ELSE excluded.started_at END,
    seen_at = excluded.seen_at,
    gone = false,
    draining = false
WHERE $5::boolean
   OR n.incarnation = excluded.incarnation
   OR n.gone
   OR n.seen_at + n.lease_s * 1000::bigint <= now_ms()
   -- The one that was asked about, in case yet another has registered meanwhile.
   OR n.incarnation = (SELECT incarnation FROM older WHERE has_died)
RETURNING n.seen_at

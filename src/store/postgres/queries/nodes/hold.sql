-- Shared, so that a session the server has not missed yet does not keep its successor of the same incarnation waiting. Taken once per
-- session: the server counts, and nobody would count down.
SELECT pg_advisory_lock_shared($1::integer, mine.key)
FROM (SELECT hashtext($2::text || ' ' || $3::text) AS key) mine
WHERE NOT EXISTS (
    SELECT FROM pg_locks held
    WHERE held.pid = pg_backend_pid() AND held.locktype = 'advisory' AND held.granted
      AND held.classid = $1::integer::oid AND held.objid = mine.key::oid AND held.objsubid = 2
)

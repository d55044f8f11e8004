-- Held to the end of the transaction. Refused while a take-over holds or awaits the exclusive lock, so take-overs never starve.
SELECT q.queue_id, pg_try_advisory_xact_lock_shared($1::integer, q.queue_id) AS locked
FROM unnest($2::integer[]) AS q (queue_id)

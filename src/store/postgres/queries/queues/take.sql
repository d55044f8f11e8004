-- Asks again whether it may be taken: while this waited for the lock, another node may have taken it, or the owner come back.
UPDATE queue_owner q SET epoch = q.epoch + 1, node = $1, incarnation = $2
WHERE q.queue_id = $3
  AND EXISTS (SELECT FROM nodes n WHERE n.node = $1 AND n.incarnation = $2 AND NOT n.gone)
  AND (q.node IS NULL
       OR (q.node = $1 AND q.incarnation <> $2)
       OR (q.node <> $1 AND NOT EXISTS (SELECT FROM live_nodes l WHERE l.node = q.node)))

SELECT q.queue_id
FROM queue_owner q
WHERE ($3::text IS NULL OR q.queue = $3)
  AND (q.node IS NULL
       OR (q.node = $1 AND q.incarnation <> $2)
       OR (q.node <> $1 AND NOT EXISTS (SELECT FROM live_nodes l WHERE l.node = q.node)))
ORDER BY q.queue_id

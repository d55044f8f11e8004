SELECT q.queue, q.node FROM queue_owner q JOIN live_nodes l ON l.node = q.node WHERE q.node <> $1 ORDER BY q.queue

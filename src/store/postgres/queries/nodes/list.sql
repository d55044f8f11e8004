SELECT n.node, n.incarnation, n.address, n.started_at, n.seen_at,
       EXISTS (SELECT FROM live_nodes l WHERE l.node = n.node) AS alive
FROM nodes n ORDER BY n.node

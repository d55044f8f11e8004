SELECT o.queue, o.epoch, o.node, c.state, coalesce(c.jobs, 0) AS jobs
FROM queue_owner o LEFT JOIN (SELECT queue_id, state, count(*) AS jobs FROM jobs GROUP BY queue_id, state) c USING (queue_id)
ORDER BY o.queue, c.state

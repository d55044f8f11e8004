SELECT o.queue, o.epoch, o.node, c.state, coalesce(c.jobs, 0)
FROM queue_owner AS o LEFT JOIN (SELECT queue_id, state, count(*) AS jobs FROM jobs GROUP BY queue_id, state) AS c
    ON c.queue_id = o.queue_id
ORDER BY o.queue, c.state

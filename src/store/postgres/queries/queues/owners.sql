SELECT q.queue, q.queue_id, q.epoch, l.node,
       EXISTS (
           SELECT FROM jobs j WHERE j.queue_id = q.queue_id AND (
               -- states: ACTIVE
               j.state IN ('running', 'paused', 'canceling')
               OR (j.state = 'pending' AND j.start_at IS NOT NULL)
           )
       ) AS busy
FROM queue_owner q LEFT JOIN live_nodes l ON l.node = q.node ORDER BY q.queue_id

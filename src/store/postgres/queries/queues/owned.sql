SELECT queue, queue_id, epoch FROM queue_owner WHERE node = $1 AND incarnation = $2 ORDER BY queue

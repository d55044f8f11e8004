SELECT epoch
FROM queue_owner
WHERE queue_id = ?1

SELECT owner.queue, owner.node
FROM queue_owner AS owner
JOIN nodes AS other ON other.node = owner.node
WHERE owner.node <> ?1 AND other.gone = 0 AND other.seen_at + other.lease_s * 1000 > ?2
ORDER BY owner.queue

-- ?1 node, ?2 incarnation, ?3 the only queue to take or null, ?4 now
UPDATE queue_owner
SET epoch = epoch + 1, node = ?1, incarnation = ?2
WHERE (?3 IS NULL OR queue = ?3)
    AND CASE
        WHEN node IS NULL THEN TRUE
        WHEN node = ?1 THEN incarnation <> ?2
        ELSE NOT EXISTS (
            SELECT 1
            FROM nodes AS other
            WHERE other.node = queue_owner.node AND other.gone = 0 AND other.seen_at + other.lease_s * 1000 > ?4
        )
    END

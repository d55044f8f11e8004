DELETE FROM jobs WHERE id = ?1 AND queue_id = ?2 AND run = ?3
    AND state IN ('succeeded', 'partially_succeeded', 'failed', 'canceled')

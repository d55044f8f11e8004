-- The update changes nothing; it is there because a row that was left alone would not be returned.
INSERT INTO queue_owner (queue)
VALUES (?1)
ON CONFLICT (queue) DO UPDATE SET queue = excluded.queue
RETURNING queue_id

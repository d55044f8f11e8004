-- The job was deleted while its event waited.
DELETE FROM events
WHERE id = $1 AND due_at IS NULL AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = events.job)

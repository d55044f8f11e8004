-- ?3 are the states, as a JSON array, from which the move is allowed. The total never falls: a chunk of tasks may have been
-- appended between the making of this update and its commit.
UPDATE jobs
SET state = ?5, run = ?6, base_run = ?7, open = ?8, total = max(total, ?9), succeeded = ?10, failed = ?11, counters = ?12,
    error = ?13, start_at = ?14, cancel_at = ?15, started_at = ?16, finished_at = ?17, updated_at = ?18, changed_seq = ?19
WHERE id = ?1
    AND queue_id = ?2
    AND state IN (SELECT value FROM json_each(?3))
    AND run = ?4

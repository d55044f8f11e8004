-- ?3 are the states, as a JSON array, from which the move is allowed. A total that is another means that a
-- chunk of tasks was appended behind this update's back: it was judged on too few tasks.
UPDATE jobs
SET state = ?5, run = ?6, base_run = ?7, open = ?8, succeeded = ?10, failed = ?11, counters = ?12,
    error = ?13, start_at = ?14, cancel_at = ?15, started_at = ?16, finished_at = ?17, updated_at = ?18, changed_seq = ?19,
    reached = ?20, priority = ?21, policy = ?22
WHERE id = ?1
    AND queue_id = ?2
    AND state IN (SELECT value FROM json_each(?3))
    AND run = ?4
    AND total = ?9

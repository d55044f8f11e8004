-- One that a commit or a writer holds at the moment is left for the next sweep.
UPDATE blobs SET given_up = true
WHERE id = ANY (ARRAY(
    SELECT id FROM blobs WHERE NOT referenced AND NOT given_up AND created_at < $1 ORDER BY created_at LIMIT $2::bigint
    FOR UPDATE SKIP LOCKED
)) AND NOT referenced

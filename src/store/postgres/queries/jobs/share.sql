-- A retry of the same job and its late results go one after the other. A row that does not come back is locked.
SELECT id FROM jobs WHERE id = ANY ($1::bigint[]) ORDER BY id FOR SHARE SKIP LOCKED

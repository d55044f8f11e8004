-- A retry of the same job and its late results go one after the other.
SELECT id FROM jobs WHERE id = ANY ($1::bigint[]) ORDER BY id FOR SHARE

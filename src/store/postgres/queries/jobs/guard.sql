SELECT id, queue_id, state, run, total, changed_seq FROM jobs WHERE id = ANY ($1::bigint[])

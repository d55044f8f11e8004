SELECT queue_id, epoch FROM queue_owner WHERE queue_id = ANY ($1::integer[])

UPDATE blobs SET referenced = true WHERE id = ANY ($1::bigint[]) AND NOT given_up RETURNING id

UPDATE blobs SET given_up = true WHERE id = ANY ($1::bigint[]) AND NOT referenced AND NOT given_up

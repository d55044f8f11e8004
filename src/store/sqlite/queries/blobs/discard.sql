UPDATE blobs SET given_up = 1 WHERE id = ?1 AND NOT referenced

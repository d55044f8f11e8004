UPDATE blobs SET referenced = 1 WHERE id = ?1 AND NOT given_up

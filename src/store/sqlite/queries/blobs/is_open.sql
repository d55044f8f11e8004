SELECT 1 FROM blobs WHERE id = ?1 AND NOT given_up

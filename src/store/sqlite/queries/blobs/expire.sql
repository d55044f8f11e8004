UPDATE blobs SET given_up = 1
WHERE id IN (SELECT id FROM blobs WHERE NOT referenced AND NOT given_up AND created_at < ?1 ORDER BY created_at LIMIT ?2)

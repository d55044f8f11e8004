-- Handed to the sweep, which removes their pieces.
UPDATE blobs SET given_up = 1 WHERE id IN (SELECT id FROM blobs WHERE job = ?1 AND NOT given_up LIMIT ?2)

-- Handed to the sweep, which removes their pieces.
UPDATE blobs SET given_up = true
WHERE id = ANY (ARRAY(SELECT id FROM blobs WHERE job = $1 AND NOT given_up LIMIT $2::bigint))

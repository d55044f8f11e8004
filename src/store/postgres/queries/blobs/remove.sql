DELETE FROM blobs b WHERE b.id = ANY (ARRAY(
    SELECT g.id FROM blobs g WHERE g.given_up AND NOT EXISTS (SELECT FROM blob_pieces p WHERE p.blob = g.id)
    ORDER BY g.id LIMIT $1::bigint
))

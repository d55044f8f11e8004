DELETE FROM blobs WHERE id IN (
    SELECT g.id FROM blobs g WHERE g.given_up AND NOT EXISTS (SELECT 1 FROM blob_pieces p WHERE p.blob = g.id)
    ORDER BY g.id LIMIT ?1
)

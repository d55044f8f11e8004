INSERT INTO blob_pieces (blob, piece, text)
SELECT id, ?2, ?3 FROM blobs WHERE id = ?1 AND NOT given_up
ON CONFLICT (blob, piece) DO NOTHING

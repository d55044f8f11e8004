DELETE FROM blob_pieces WHERE rowid IN (
    SELECT p.rowid FROM blobs b JOIN blob_pieces p ON p.blob = b.id WHERE b.given_up ORDER BY b.id LIMIT ?1
)

DELETE FROM blob_pieces WHERE ctid = ANY (ARRAY(
    SELECT p.ctid FROM blobs b JOIN blob_pieces p ON p.blob = b.id WHERE b.given_up ORDER BY b.id LIMIT $1::bigint
))

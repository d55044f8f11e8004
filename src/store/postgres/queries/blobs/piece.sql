SELECT text FROM blob_pieces WHERE blob = $1 AND piece = $2

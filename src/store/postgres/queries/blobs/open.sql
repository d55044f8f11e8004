INSERT INTO blobs (job, bytes, created_at) VALUES ($1, $2, $3) RETURNING id

UPDATE nodes SET seen_at = now_ms(), lease_s = $3, address = $4 WHERE node = $1 AND incarnation = $2 AND NOT gone RETURNING seen_at

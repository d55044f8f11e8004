UPDATE nodes SET draining = true WHERE node = $1 AND incarnation = $2 AND NOT gone

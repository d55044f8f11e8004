SELECT node FROM nodes WHERE node = $1 AND incarnation = $2 AND NOT gone

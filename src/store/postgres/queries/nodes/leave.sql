UPDATE nodes SET gone = true WHERE node = $1 AND incarnation = $2

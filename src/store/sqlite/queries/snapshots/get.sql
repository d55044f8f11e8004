SELECT version, bytes
FROM snapshots
WHERE job = ?1

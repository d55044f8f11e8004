DELETE FROM snapshots WHERE job = ?1

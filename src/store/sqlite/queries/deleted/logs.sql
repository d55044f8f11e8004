DELETE FROM logs WHERE rowid IN (SELECT rowid FROM logs WHERE job = ?1 LIMIT ?2)

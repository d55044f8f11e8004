DELETE FROM late WHERE rowid IN (SELECT rowid FROM late WHERE job = ?1 LIMIT ?2)

DELETE FROM attempts WHERE rowid IN (SELECT rowid FROM attempts WHERE job = ?1 LIMIT ?2)

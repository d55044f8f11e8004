DELETE FROM outcomes WHERE rowid IN (SELECT rowid FROM outcomes WHERE job = ?1 LIMIT ?2)

DELETE FROM tasks WHERE job = ?1 AND task IN (SELECT task FROM tasks WHERE job = ?1 LIMIT ?2)

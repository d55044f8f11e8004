UPDATE jobs
SET total = ?3
WHERE id = ?1 AND total = ?2

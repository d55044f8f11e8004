SELECT job FROM deleted_jobs ORDER BY job LIMIT 1

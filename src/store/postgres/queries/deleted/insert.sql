INSERT INTO deleted_jobs (job) VALUES ($1)

DELETE FROM deleted_jobs WHERE job = $1

DELETE FROM idempotency WHERE job = ?1

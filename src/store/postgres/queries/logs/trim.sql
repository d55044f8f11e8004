-- $1 job, $2 how many of the newest stay
DELETE FROM logs WHERE job = $1 AND id <= (
    SELECT id FROM logs WHERE job = $1 ORDER BY id DESC OFFSET $2::bigint LIMIT 1
)

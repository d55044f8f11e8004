INSERT INTO snapshots (job, seq, version, bytes)
VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (job) DO UPDATE SET
    seq = excluded.seq,
    version = excluded.version,
    bytes = excluded.bytes
WHERE excluded.version > version

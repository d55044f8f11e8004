INSERT INTO snapshots (job, epoch, seq, version, bytes)
VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (job) DO UPDATE SET
    epoch = excluded.epoch,
    seq = excluded.seq,
    version = excluded.version,
    bytes = excluded.bytes
WHERE excluded.version > version

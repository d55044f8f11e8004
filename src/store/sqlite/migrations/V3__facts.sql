-- Tasks that have come to each stage, as a JSON array of numbers, as the last transition counted them.
ALTER TABLE jobs ADD COLUMN reached TEXT NOT NULL DEFAULT '[]';

-- What happened in a job, for people. Written in batches and never updated. AUTOINCREMENT: a cursor never points at a newer entry that
-- took the number of a deleted one.
CREATE TABLE logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL,
    at INTEGER NOT NULL,
    level INTEGER NOT NULL,
    source TEXT NOT NULL,
    worker TEXT,
    task INTEGER,
    message TEXT NOT NULL
) STRICT;

CREATE INDEX logs_by_job ON logs (job, id);

-- Few rows: what failed is found without reading what succeeded.
CREATE INDEX outcomes_failed ON outcomes (job, run, task) WHERE succeeded = 0;

CREATE INDEX idempotency_by_job ON idempotency (job);

-- Jobs whose row is gone and whose other rows are still to be removed, piece by piece.
CREATE TABLE deleted_jobs (job INTEGER PRIMARY KEY) STRICT;

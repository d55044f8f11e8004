-- Tasks that have come to each stage, as a JSON array of numbers, as the last transition counted them.
ALTER TABLE jobs ADD COLUMN reached text NOT NULL DEFAULT '[]';

-- What happened in a job, for people. Written in batches and never updated; nothing here takes a lock on the job's row.
CREATE TABLE logs (
    id bigint GENERATED ALWAYS AS IDENTITY,
    job bigint NOT NULL,
    at bigint NOT NULL,
    level smallint NOT NULL,
    source text NOT NULL,
    worker text,
    task bigint,
    message text NOT NULL,
    PRIMARY KEY (job, id)
);

-- Few rows: what failed is found without reading what succeeded.
CREATE INDEX outcomes_failed ON outcomes (job, run, task) WHERE NOT succeeded;

CREATE INDEX idempotency_by_job ON idempotency (job);

-- Jobs whose row is gone and whose other rows are still to be removed, piece by piece.
CREATE TABLE deleted_jobs (job bigint PRIMARY KEY);

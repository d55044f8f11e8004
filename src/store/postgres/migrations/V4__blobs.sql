-- Results too large for a row. A blob is referred to by the outcome (or late result) that was committed with it, or it is an orphan; the
-- commit sets `referenced` in its own transaction, and only where `given_up` is not set, so a sweep and a commit never both get it.
CREATE TABLE blobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job bigint NOT NULL,
    bytes bigint NOT NULL,
    created_at bigint NOT NULL,
    referenced boolean NOT NULL DEFAULT false,
    -- To be removed, piece by piece.
    given_up boolean NOT NULL DEFAULT false
);
CREATE INDEX blobs_by_job ON blobs (job);
CREATE INDEX blobs_orphaned ON blobs (created_at) WHERE NOT referenced AND NOT given_up;
CREATE INDEX blobs_given_up ON blobs (id) WHERE given_up;

CREATE TABLE blob_pieces (
    blob bigint NOT NULL,
    piece integer NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (blob, piece)
);
-- Compressing on the way in would cost more than writing.
ALTER TABLE blob_pieces ALTER COLUMN text SET STORAGE EXTERNAL;

ALTER TABLE outcomes ADD COLUMN blob_id bigint;
ALTER TABLE late ADD COLUMN blob_id bigint;

CREATE FUNCTION blob_text(wanted bigint) RETURNS text LANGUAGE sql STABLE
    AS $$ SELECT string_agg(text, '' ORDER BY piece) FROM blob_pieces WHERE blob = wanted $$;

CREATE OR REPLACE VIEW results AS
    SELECT o.job, o.run, o.task, t.key, o.succeeded, false AS late, o.attempt,
           coalesce(o.result, CASE WHEN o.blob_id IS NOT NULL THEN blob_text(o.blob_id) END)::jsonb AS result, o.error,
           o.counters::jsonb AS counters, o.worker, o.at
    FROM outcomes o LEFT JOIN tasks t ON t.job = o.job AND t.task = o.task
    UNION ALL
    SELECT l.job, l.run, l.task, t.key, l.succeeded, true, l.attempt,
           coalesce(l.result, CASE WHEN l.blob_id IS NOT NULL THEN blob_text(l.blob_id) END)::jsonb, l.error,
           l.counters::jsonb, l.worker, l.at
    FROM late l LEFT JOIN tasks t ON t.job = l.job AND t.task = l.task;

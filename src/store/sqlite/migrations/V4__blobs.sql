-- Results too large for a row. A blob is referred to by the outcome (or late result) that was committed with it, or it is an orphan; the
-- commit sets `referenced` in its own transaction, and only where `given_up` is not set, so a sweep and a commit never both get it.
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    referenced INTEGER NOT NULL DEFAULT 0,
    -- To be removed, piece by piece.
    given_up INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX blobs_by_job ON blobs (job);
CREATE INDEX blobs_orphaned ON blobs (created_at) WHERE NOT referenced AND NOT given_up;
CREATE INDEX blobs_given_up ON blobs (id) WHERE given_up;

CREATE TABLE blob_pieces (
    blob INTEGER NOT NULL,
    piece INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (blob, piece)
) STRICT;

ALTER TABLE outcomes ADD COLUMN blob_id INTEGER;
ALTER TABLE late ADD COLUMN blob_id INTEGER;

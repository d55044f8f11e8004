-- Moments are milliseconds since 1970-01-01 UTC. JSON is text, kept as it was given.

CREATE TABLE nodes (
    node TEXT NOT NULL PRIMARY KEY,
    incarnation TEXT NOT NULL,
    address TEXT NOT NULL,
    lease_s INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    gone INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- The fence: every write of an owned job's state compares `epoch` in its own transaction.
CREATE TABLE queue_owner (
    queue_id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL UNIQUE,
    epoch INTEGER NOT NULL DEFAULT 0,
    node TEXT,
    incarnation TEXT
) STRICT;

-- AUTOINCREMENT: an id is never given out twice, also not after its job was deleted.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    -- The name in lower case by Unicode's rules, which SQLite's own lower() does not know.
    name_folded TEXT NOT NULL,
    queue_id INTEGER NOT NULL REFERENCES queue_owner (queue_id),
    state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'paused', 'canceling',
        'succeeded', 'partially_succeeded', 'failed', 'canceled')),
    run INTEGER NOT NULL CHECK (run >= 1),
    base_run INTEGER NOT NULL CHECK (base_run >= 1 AND base_run <= run),
    priority INTEGER NOT NULL,
    open INTEGER NOT NULL,
    expected_total INTEGER,
    stages TEXT NOT NULL,
    policy TEXT NOT NULL,
    labels TEXT NOT NULL,
    callback_url TEXT,
    total INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    counters TEXT NOT NULL,
    error TEXT,
    start_at INTEGER,
    cancel_at INTEGER,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    updated_at INTEGER NOT NULL,
    changed_seq INTEGER NOT NULL
) STRICT;

CREATE INDEX jobs_unfinished ON jobs (queue_id, id) WHERE state IN ('pending', 'running', 'paused', 'canceling');

-- Nothing but a new run leaves a final state, whatever statement tries.
CREATE TRIGGER jobs_final_state_stands
BEFORE UPDATE OF state, run ON jobs
WHEN old.state IN ('succeeded', 'partially_succeeded', 'failed', 'canceled')
    AND new.run <= old.run
    AND (new.state <> old.state OR new.run < old.run)
BEGIN
    SELECT RAISE(ABORT, 'a final state is left only by a new run');
END;

CREATE TABLE idempotency (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    body_sha256 BLOB NOT NULL,
    job INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE tasks (
    job INTEGER NOT NULL,
    task INTEGER NOT NULL,
    key TEXT,
    payload TEXT NOT NULL,
    PRIMARY KEY (job, task)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX tasks_by_key ON tasks (job, key) WHERE key IS NOT NULL;

-- Rows of outcomes, late and attempts lie in the order they came, behind narrow indexes. Clustered by their key they take up to a third
-- more time where results come in order of the tasks, and twice to three times as long where they do not: each row would then open a
-- page of its own.
--
-- Task before run: the key that makes a (job, run, task) unique is also the order in which results are read.
CREATE TABLE outcomes (
    job INTEGER NOT NULL,
    task INTEGER NOT NULL,
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at INTEGER NOT NULL,
    worker TEXT NOT NULL,
    counters TEXT,
    error TEXT,
    result TEXT,
    PRIMARY KEY (job, task, run)
) STRICT;

CREATE INDEX outcomes_by_seq ON outcomes (job, seq);

CREATE TABLE late (
    job INTEGER NOT NULL,
    task INTEGER NOT NULL,
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at INTEGER NOT NULL,
    worker TEXT NOT NULL,
    counters TEXT,
    error TEXT,
    result TEXT,
    PRIMARY KEY (job, task, run)
) STRICT;

CREATE INDEX late_by_seq ON late (job, seq);

CREATE TABLE attempts (
    job INTEGER NOT NULL,
    task INTEGER NOT NULL,
    run INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    cause TEXT NOT NULL CHECK (cause IN ('reported', 'expired')),
    at INTEGER NOT NULL,
    worker TEXT NOT NULL,
    error TEXT,
    PRIMARY KEY (job, task, run, attempt)
) STRICT;

CREATE INDEX attempts_by_seq ON attempts (job, seq);

-- The outbox. The id is stable for a (job, run), so however often a commit is replayed there is one event.
CREATE TABLE events (
    id TEXT NOT NULL PRIMARY KEY,
    job INTEGER NOT NULL,
    run INTEGER NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    delivered_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX events_undelivered ON events (created_at, id) WHERE delivered_at IS NULL;

CREATE TABLE snapshots (
    job INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    version INTEGER NOT NULL,
    bytes BLOB NOT NULL
) STRICT;

CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    queues TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

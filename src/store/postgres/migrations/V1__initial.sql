-- Times are milliseconds since 1970-01-01 UTC. Comments of the form `states: NAME` name the list of src/domain/state.rs that the next
-- line repeats; a test compares them. The hot tables (tasks, outcomes, attempts, late) have no foreign keys: one would lock the job's row
-- for every insert.

CREATE FUNCTION now_ms() RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

CREATE TABLE nodes (
    node text PRIMARY KEY,
    incarnation text NOT NULL,
    address text NOT NULL,
    lease_s integer NOT NULL,
    started_at bigint NOT NULL,
    seen_at bigint NOT NULL,
    -- Left of its own accord: not alive, whatever its lease says.
    gone boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

CREATE VIEW live_nodes AS
    SELECT node, incarnation FROM nodes WHERE NOT gone AND seen_at + lease_s * 1000::bigint > now_ms();

CREATE TABLE queue_owner (
    queue_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL UNIQUE,
    epoch bigint NOT NULL DEFAULT 0,
    node text,
    incarnation text
) WITH (fillfactor = 50);

CREATE TABLE jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    queue text NOT NULL,
    queue_id integer NOT NULL,
    state text NOT NULL,
    run integer NOT NULL CHECK (run >= 1),
    base_run integer NOT NULL CHECK (base_run >= 1 AND base_run <= run),
    priority integer NOT NULL,
    open boolean NOT NULL,
    expected_total bigint,
    stages text NOT NULL,
    policy text NOT NULL,
    labels jsonb NOT NULL,
    callback_url text,
    total bigint NOT NULL,
    succeeded bigint NOT NULL,
    failed bigint NOT NULL,
    counters text NOT NULL,
    error_code text,
    error_message text,
    start_at bigint,
    cancel_at bigint,
    created_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint,
    updated_at bigint NOT NULL,
    changed_seq bigint NOT NULL,
    CONSTRAINT jobs_state_known CHECK (
        -- states: ALL
        state IN ('pending', 'running', 'paused', 'canceling', 'succeeded', 'partially_succeeded', 'failed', 'canceled')
    )
) WITH (fillfactor = 70);

CREATE INDEX jobs_unfinished ON jobs (queue_id, id) WHERE
    -- states: ACTIVE
    state IN ('running', 'paused', 'canceling')
    OR (state = 'pending' AND start_at IS NOT NULL);
CREATE INDEX jobs_by_queue ON jobs (queue, id);
CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE INDEX jobs_by_label ON jobs USING gin (labels jsonb_path_ops);

-- The last line of defence: whatever a program does, a final state stays unless a new run starts.
CREATE FUNCTION refuse_leaving_final_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'job % is % in run %: only a new run leaves a final state', OLD.id, OLD.state, OLD.run
        USING ERRCODE = 'TK001';
END
$$;

CREATE TRIGGER jobs_final_state_stays BEFORE UPDATE ON jobs FOR EACH ROW
    WHEN (
        -- states: FINAL
        OLD.state IN ('succeeded', 'partially_succeeded', 'failed', 'canceled')
        AND NEW.state IS DISTINCT FROM OLD.state
        AND NEW.run <= OLD.run
    )
    EXECUTE FUNCTION refuse_leaving_final_state();

CREATE TABLE tasks (
    job bigint NOT NULL,
    task integer NOT NULL,
    key text,
    payload text NOT NULL,
    PRIMARY KEY (job, task)
);
CREATE UNIQUE INDEX tasks_by_key ON tasks (job, key) WHERE key IS NOT NULL;

-- Results are text: casting to jsonb on the way in makes one backend the limit. The view `results` casts on the way out.
CREATE TABLE outcomes (
    job bigint NOT NULL,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    run integer NOT NULL,
    task integer NOT NULL,
    attempt integer NOT NULL,
    succeeded boolean NOT NULL,
    worker text NOT NULL,
    result text,
    error text,
    counters text,
    PRIMARY KEY (job, run, task)
);
-- Partial, though every seq is above 0: so only a query that says so uses it. One that looks for a task must not, even where the
-- statistics do not know the job yet and any index on it seems as good as another.
CREATE INDEX outcomes_by_seq ON outcomes (job, seq) WHERE seq > 0;

CREATE TABLE attempts (
    job bigint NOT NULL,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    run integer NOT NULL,
    task integer NOT NULL,
    attempt integer NOT NULL,
    cause text NOT NULL CHECK (cause IN ('reported', 'expired')),
    worker text NOT NULL,
    error text,
    PRIMARY KEY (job, run, task, attempt)
);
CREATE INDEX attempts_by_seq ON attempts (job, seq) WHERE seq > 0;

CREATE TABLE late (
    job bigint NOT NULL,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    run integer NOT NULL,
    task integer NOT NULL,
    attempt integer NOT NULL,
    succeeded boolean NOT NULL,
    worker text NOT NULL,
    result text,
    error text,
    counters text,
    PRIMARY KEY (job, run, task)
);
CREATE INDEX late_by_seq ON late (job, seq) WHERE seq > 0;

CREATE VIEW results AS
    SELECT o.job, o.run, o.task, t.key, o.succeeded, false AS late, o.attempt, o.result::jsonb AS result, o.error,
           o.counters::jsonb AS counters, o.worker, o.at
    FROM outcomes o LEFT JOIN tasks t ON t.job = o.job AND t.task = o.task
    UNION ALL
    SELECT l.job, l.run, l.task, t.key, l.succeeded, true, l.attempt, l.result::jsonb, l.error,
           l.counters::jsonb, l.worker, l.at
    FROM late l LEFT JOIN tasks t ON t.job = l.job AND t.task = l.task;

-- The outbox. The id is stable for a (job, run), so however often a commit is replayed there is one event.
CREATE TABLE events (
    id text PRIMARY KEY,
    job bigint NOT NULL,
    run integer NOT NULL,
    kind text NOT NULL,
    payload text NOT NULL,
    created_at bigint NOT NULL,
    delivered_at bigint
);
CREATE INDEX events_undelivered ON events (created_at, id) WHERE delivered_at IS NULL;

CREATE TABLE snapshots (
    job bigint PRIMARY KEY,
    seq bigint NOT NULL,
    version bigint NOT NULL,
    bytes bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02);
-- Bitmaps do not compress: do not try.
ALTER TABLE snapshots ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE idempotency (
    scope text NOT NULL,
    key text NOT NULL,
    body_sha256 bytea NOT NULL,
    job bigint NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (scope, key)
);

CREATE TABLE tokens (
    id text PRIMARY KEY,
    name text NOT NULL,
    hash bytea NOT NULL UNIQUE,
    scopes text[] NOT NULL,
    queues text[],
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint
);

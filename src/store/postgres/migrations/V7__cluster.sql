-- A node that gives up its queues: others take them, and it takes none.
ALTER TABLE nodes ADD COLUMN draining boolean NOT NULL DEFAULT false;

-- Facts of all nodes together. `secret`: how nodes know each other, 244 random bits. `oldest_schema_known`: a program that knows this version
-- of the schema or a later one may use the database, though it be newer; a migration that breaks older programs moves it up.
CREATE TABLE cluster (
    name text PRIMARY KEY,
    value text NOT NULL
);
INSERT INTO cluster (name, value) VALUES
    ('secret', replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '')),
    ('oldest_schema_known', '7');

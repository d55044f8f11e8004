-- As on a shared store, so that both behave alike; one process has this file, so no other node ever asks.
ALTER TABLE nodes ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;

-- `oldest_schema_known`: a program that knows this version of the schema or a later one may use the file, though it be newer.
CREATE TABLE cluster (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO cluster (name, value) VALUES ('secret', lower(hex(randomblob(32)))), ('oldest_schema_known', '7');

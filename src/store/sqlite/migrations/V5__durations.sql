-- How long the lease that decided a task had been held, in milliseconds; null where its grant is not known.
ALTER TABLE outcomes ADD COLUMN took_ms INTEGER;
ALTER TABLE late ADD COLUMN took_ms INTEGER;

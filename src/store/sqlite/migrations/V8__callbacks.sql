-- Sending the completion events. An event without a url has nobody to call; those written before had nobody to send them and stay as they
-- are. One that waits is due at `due_at`, also while it is claimed; `claim` tells a claim from every other of the same event.
ALTER TABLE events ADD COLUMN url TEXT;
ALTER TABLE events ADD COLUMN receiver TEXT;
ALTER TABLE events ADD COLUMN due_at INTEGER;
ALTER TABLE events ADD COLUMN claim INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
-- When the first of these attempts began.
ALTER TABLE events ADD COLUMN since INTEGER;
ALTER TABLE events ADD COLUMN last_error TEXT;
ALTER TABLE events ADD COLUMN given_up_at INTEGER;
DROP INDEX events_undelivered;
-- Only a query that says `due_at > 0` uses it. A claim must not: it would read past all that waits for one receiver to find what waits for
-- another.
CREATE INDEX events_due ON events (due_at) WHERE due_at > 0;
CREATE INDEX events_by_receiver ON events (receiver, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX events_by_job ON events (job, run);

-- Looks before it inserts: a conflicting insert would use up an id each time. No row: another transaction is creating it, ask again.
WITH found AS (SELECT queue_id FROM queue_owner WHERE queue = $1::text),
     made AS (
         INSERT INTO queue_owner (queue) SELECT $1::text WHERE NOT EXISTS (SELECT FROM found)
         ON CONFLICT (queue) DO NOTHING RETURNING queue_id
     )
SELECT queue_id FROM found UNION ALL SELECT queue_id FROM made

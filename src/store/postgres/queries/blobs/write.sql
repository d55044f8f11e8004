-- The shared lock keeps a sweep from giving the blob up between this look and the insert: its last piece would be left for ever.
WITH open AS (
    SELECT id FROM blobs WHERE id = $1 AND NOT given_up FOR SHARE
), written AS (
    INSERT INTO blob_pieces (blob, piece, text) SELECT id, $2::integer, $3::text FROM open
    ON CONFLICT (blob, piece) DO NOTHING
)
SELECT id FROM open

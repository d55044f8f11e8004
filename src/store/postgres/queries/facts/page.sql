-- Each source is cut to the page before they are merged, so a page costs three short index scans.
(SELECT seq, run, task, 'outcome' AS kind, succeeded, counters, NULL::integer AS attempt, NULL::text AS cause, at
 FROM outcomes WHERE job = $1 AND seq > 0 AND seq > $2 ORDER BY seq LIMIT $3::bigint)
UNION ALL
(SELECT seq, run, task, 'attempt', NULL, NULL, attempt, cause, at
 FROM attempts WHERE job = $1 AND seq > 0 AND seq > $2 ORDER BY seq LIMIT $3::bigint)
UNION ALL
(SELECT seq, run, task, 'late', succeeded, counters, NULL, NULL, at
 FROM late WHERE job = $1 AND seq > 0 AND seq > $2 ORDER BY seq LIMIT $3::bigint)
ORDER BY seq LIMIT $3::bigint

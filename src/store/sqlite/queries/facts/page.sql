SELECT seq, run, task, 'outcome' AS kind, succeeded, counters, NULL AS attempt, NULL AS cause, NULL AS at
FROM outcomes
WHERE job = ?1 AND seq > ?2
UNION ALL
SELECT seq, run, task, 'attempt', NULL, NULL, attempt, cause, at
FROM attempts
WHERE job = ?1 AND seq > ?2
UNION ALL
SELECT seq, run, task, 'late', succeeded, counters, NULL, NULL, NULL
FROM late
WHERE job = ?1 AND seq > ?2
ORDER BY seq
LIMIT ?3

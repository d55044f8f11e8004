SELECT to_regclass('cluster') IS NOT NULL

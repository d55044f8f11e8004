SELECT value FROM cluster WHERE name = 'oldest_schema_known'

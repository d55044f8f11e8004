SELECT value FROM cluster WHERE name = 'secret'

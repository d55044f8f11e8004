SELECT bytes FROM snapshots WHERE job = $1

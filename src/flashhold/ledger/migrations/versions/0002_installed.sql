-- Applied by 0002_installed.py. When the partition was first made in Redis: set before anything of it is there, so
-- that an empty Redis beside it is a loss, though the ledger may have no entry yet. NULL: never, or by a version that
-- did not say; the next API process that finds both stores in agreement sets it then. Who writes `partitions` without
-- naming its columns leaves it NULL, so that an older version's worker goes on.
ALTER TABLE partitions ADD installed_at timestamptz;

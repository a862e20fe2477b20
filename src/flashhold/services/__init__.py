"""Where Redis meets Postgres: the write-behind, the sweep, the audit. Nothing else knows both."""

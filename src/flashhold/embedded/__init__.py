"""The stores that `flashhold up` brings along: real Valkey (or Redis) and real Postgres, found, run and supervised."""

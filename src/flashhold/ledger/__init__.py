"""Speaks Postgres: the one memory. It holds a gap-free, hash-chained prefix of the journal, exactly once."""

from flashhold.ledger.schema import upgrade

__all__ = ["upgrade"]

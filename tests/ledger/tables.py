"""What a test looks at in the ledger, or does to it behind its back."""

from typing import Any

import psycopg

TABLES = {
    "batches": "partition, epoch, first_seq, count, at_ms, chain, payload",
    "entries": "*",
    "postings": "*",
    "balances": "*",
    "holds": "*",
    "policies": "*",
}


def rows(database_url: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """The answer to a query."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        return connection.execute(query, values or None).fetchall()


def contents(database_url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that the ledger remembers, without who wrote it when."""
    found = {}
    for table, columns in TABLES.items():
        found[table] = sorted(rows(database_url, f"SELECT {columns} FROM {table}"), key=repr)
    found["place"] = rows(database_url, "SELECT partition, epoch, seq, chain, halted FROM partitions")
    return found


def tamper(database_url: str, statement: str, *values: Any) -> None:
    """Do what the ledger refuses: as its owner, with its guard taken down."""
    with psycopg.connect(database_url) as connection:
        for table in ("entries", "postings", "batches"):
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER append_only")
        changed = connection.execute(statement, values or None).rowcount
        for table in ("entries", "postings", "batches"):
            connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER append_only")
    assert changed, "the tampering must hit something"

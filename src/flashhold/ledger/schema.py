"""Brings a database's tables to the shape that this version needs."""

from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from flashhold.ledger.connect import connect_sync, translated

# One upgrade at a time in a database, whoever starts it: every API and worker process may try at its start.
_LOCK = int.from_bytes(b"flashhol", "big") >> 1


def upgrade(database_url: str) -> str:
    """Apply what is missing, all or nothing, and return the revision that the database is at.

    Any number of processes may call it at once. Raises `LedgerUnavailable`.
    """
    engine = connect_sync(database_url, statement_timeout_ms=0)
    try:
        with as_file(files("flashhold.ledger") / "migrations") as scripts, translated(), engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", str(scripts).replace("%", "%%"))
            config.attributes["connection"] = connection
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            command.upgrade(config, "head")
            return ScriptDirectory.from_config(config).get_current_head() or ""
    finally:
        engine.dispose()

"""Brings a database's tables to the shape that this version needs."""

from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from flashhold.domain.errors import Misconfigured
from flashhold.ledger.connect import connect_sync, translated

# One upgrade at a time in a database, whoever starts it: every API and worker process may try at its start.
_LOCK = int.from_bytes(b"flashhol", "big") >> 1


def upgrade(database_url: str) -> str:
    """Apply what is missing, all or nothing, and return the revision that the database is at.

    A database that a later version has upgraded already is left as it is: every revision only adds to the one before
    it, so this version goes on with it. Any number of processes may call this at once. Raises `LedgerUnavailable`;
    `Misconfigured` where the revision is none of ours.
    """
    engine = connect_sync(database_url, statement_timeout_ms=0)
    try:
        with as_file(files("flashhold.ledger") / "migrations") as scripts, translated(), engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", str(scripts).replace("%", "%%"))
            config.attributes["connection"] = connection
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            head = ScriptDirectory.from_config(config).get_current_head() or ""
            found = MigrationContext.configure(connection).get_current_revision() or ""
            if found > head:
                return _later(found, head)
            command.upgrade(config, "head")
            return head
    finally:
        engine.dispose()


def _later(found: str, head: str) -> str:
    # Revisions are numbered in four digits. Anything else was not made by a FlashHold.
    if len(found) != len(head) or not found.isdigit():
        raise Misconfigured(f"the database is at revision {found!r}, which no FlashHold has made")
    return found

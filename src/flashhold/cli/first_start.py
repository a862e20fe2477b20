"""What `up` does between its stores and its processes: tables and, the first time, a key to begin with."""

from pathlib import Path

import redis

from flashhold.domain.errors import Misconfigured, StoreUnavailable
from flashhold.embedded.child import write_atomically
from flashhold.engine.address import blocking_client
from flashhold.engine.keys import FIRST_PARTITION
from flashhold.ledger import upgrade
from flashhold.ledger.api_keys import new_key, register


def prepare_stores(redis_url: str, database_url: str, key_file: Path) -> None:
    """Reach both stores, migrate the ledger, see to the admin key. Raises StoreUnavailable, LedgerUnavailable,
    Misconfigured."""
    with blocking_client(redis_url, FIRST_PARTITION) as client:
        try:
            client.ping()
        except redis.RedisError as error:
            raise StoreUnavailable(f"Redis can't be reached: {error}") from error
    upgrade(database_url)
    see_to_admin_key(database_url, key_file)


def see_to_admin_key(database_url: str, key_file: Path) -> None:
    """Make sure that the file holds a key and that the ledger knows it.

    The file comes first: a crash in between leaves a key that the next start registers, never one that is valid and
    that nobody has. A key that was revoked stays so. Raises LedgerUnavailable, Misconfigured.
    """
    if not key_file.exists():
        write_atomically(key_file, new_key() + "\n", mode=0o600)
    try:
        register(database_url, key_file.read_text().strip(), ["admin"], "first key")
    except Misconfigured as error:
        raise Misconfigured(f"{key_file} holds no key. Remove it, and the next start makes a new one.") from error

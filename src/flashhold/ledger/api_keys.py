"""API keys as an operator makes and revokes them.

A key reads `fh_<id>_<secret>`; only the SHA-256 of the secret is stored.
"""

import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from flashhold.domain.errors import Misconfigured
from flashhold.ledger.connect import connect_sync, translated
from flashhold.ledger.tables import API_KEYS

SCOPES = ("holds", "stock", "read", "admin")
"""What a key may be allowed; `admin` implies the others."""

_KEY = re.compile(r"fh_(?P<id>[0-9a-f]{12})_(?P<secret>[A-Za-z0-9_-]{43})")


class KeyListed(NamedTuple):
    """A key without its secret, which nobody has any more but who received it."""

    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None


def new_key() -> str:
    """A key that nothing knows yet. 256 random bits: nothing to guess, so a fast hash guards them as well."""
    return f"fh_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"


def key_id(key: str) -> str:
    """The public part of a key. Raises Misconfigured for a text that is none."""
    return _parsed(key)[0]


def register(database_url: str, key: str, scopes: Sequence[str], name: str = "") -> bool:
    """Let a key in; False if its id is known already (then nothing changes, and a revoked key stays revoked).

    Raises `LedgerUnavailable`, `Misconfigured`.
    """
    public, secret = _parsed(key)
    row = {"id": public, "name": name, "scopes": sorted(set(scopes)), "hash": sha256(secret.encode()).digest()}
    statement = insert(API_KEYS).values(**row, created_at=sa.func.now()).on_conflict_do_nothing()
    return _execute(database_url, statement) == 1


def revoke(database_url: str, public: str) -> bool:
    """Shut a key out from the next reading of the table on; False where there is none. Raises `LedgerUnavailable`."""
    first_time = sa.func.coalesce(API_KEYS.c.revoked_at, sa.func.now())
    return _execute(database_url, sa.update(API_KEYS).where(API_KEYS.c.id == public).values(revoked_at=first_time)) == 1


def listed(database_url: str) -> list[KeyListed]:
    """Every key there has been, the oldest first. Raises `LedgerUnavailable`."""
    query = sa.select(*(API_KEYS.c[name] for name in KeyListed._fields)).order_by(API_KEYS.c.created_at, API_KEYS.c.id)
    engine = connect_sync(database_url)
    try:
        with translated(), engine.connect() as connection:
            return [KeyListed(*row) for row in connection.execute(query)]
    finally:
        engine.dispose()


def _parsed(key: str) -> tuple[str, str]:
    found = _KEY.fullmatch(key)
    if found is None:
        raise Misconfigured("This is not a FlashHold key; one reads fh_<id>_<secret>.")
    return found["id"], found["secret"]


def _execute(database_url: str, statement: sa.Executable) -> int:
    """Rows changed."""
    engine = connect_sync(database_url)
    try:
        with translated(), engine.begin() as connection:
            return connection.execute(statement).rowcount
    finally:
        engine.dispose()

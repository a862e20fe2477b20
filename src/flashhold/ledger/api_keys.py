"""API keys: made here, shown once, kept as the SHA-256 of their secret.

A key is `fh_<id>_<secret>`. The secret is 256 random bits, so there is nothing to guess and a fast hash is enough.
"""

import re
import secrets
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from flashhold.domain.errors import Misconfigured
from flashhold.ledger.connect import connect_sync, translated
from flashhold.ledger.tables import API_KEYS

SCOPES = ("holds", "stock", "read", "admin")

_KEY = re.compile(r"fh_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class KeyListed(NamedTuple):
    """What the ledger knows of a key."""

    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None


def new_key() -> str:
    """A key that nobody knows yet, the ledger included: see `register`."""
    return f"fh_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"


def key_id(key: str) -> str:
    """The public part of a key. Raises `Misconfigured` for what is none."""
    return _parts(key)[0]


def register(database_url: str, key: str, scopes: Iterable[str], name: str = "") -> None:
    """Let a key in. Again: nothing more happens, also when it was revoked meanwhile.

    Raises `Misconfigured` for what is no key, `ValueError` for a scope that there is not, `LedgerUnavailable`.
    """
    number, secret = _parts(key)
    wanted = sorted(set(scopes))
    if not wanted or not set(wanted) <= set(SCOPES):
        raise ValueError(f"a key needs scopes out of {', '.join(SCOPES)}")
    row = {"id": number, "name": name, "scopes": wanted, "hash": sha256(secret.encode()).digest()}
    _execute(database_url, insert(API_KEYS).values(**row, created_at=sa.func.now()).on_conflict_do_nothing())


def listed(database_url: str) -> list[KeyListed]:
    """All keys, revoked ones too, oldest first. Raises `LedgerUnavailable`."""
    columns = [API_KEYS.c[name] for name in KeyListed._fields]
    rows = _execute(database_url, sa.select(*columns).order_by(API_KEYS.c.created_at, API_KEYS.c.id))
    return [KeyListed(*row) for row in rows]


def revoke(database_url: str, number: str) -> bool:
    """Shut a key out; False where there is none of this id. Again: nothing more happens. Raises `LedgerUnavailable`."""
    known = sa.update(API_KEYS).where(API_KEYS.c.id == number)
    revoked = known.values(revoked_at=sa.func.coalesce(API_KEYS.c.revoked_at, sa.func.now())).returning(API_KEYS.c.id)
    return bool(_execute(database_url, revoked))


def _parts(key: str) -> tuple[str, str]:
    found = _KEY.fullmatch(key)
    if found is None:
        raise Misconfigured("this is not a key that FlashHold has made")
    return found[1], found[2]


def _execute(database_url: str, statement: sa.Executable) -> list[Any]:
    engine = connect_sync(database_url)
    try:
        with translated(), engine.begin() as connection:
            result = connection.execute(statement)
            return list(result) if result.returns_rows else []
    finally:
        engine.dispose()

"""API keys at the door: `Authorization: Bearer fh_<id>_<secret>`, checked against a table kept in memory.

The ledger stores only the SHA-256 of a secret. A secret is 256 random bits, so a fast hash is enough (there is nothing
to guess), and it costs the hot path a microsecond where a password hash would cost it everything.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import IntFlag
from hashlib import sha256
from typing import NamedTuple

from flashhold import telemetry
from flashhold.domain.errors import FlashHoldError
from flashhold.http.problems import Problem

UNKNOWN_KEY_REFRESH_SECONDS = 0.25
"""How often the table may be read again for the sake of ids that it doesn't know."""

_log = telemetry.logger(__name__)


class Scope(IntFlag):
    """What a key may do; `ADMIN` implies all."""

    HOLDS = 1
    STOCK = 2
    READ = 4
    ADMIN = 8


NAMES = {"holds": Scope.HOLDS, "stock": Scope.STOCK, "read": Scope.READ, "admin": Scope.ADMIN}

# Plain integers: an IntFlag's `&` costs a microsecond.
MAY_HOLD = int(Scope.HOLDS | Scope.ADMIN)
MAY_MOVE = int(Scope.STOCK | Scope.ADMIN)
MAY_READ_HOLDS = int(Scope.HOLDS | Scope.STOCK | Scope.READ | Scope.ADMIN)
MAY_READ_AVAILABILITY = int(Scope.HOLDS | Scope.READ | Scope.ADMIN)
MAY_READ_STOCK = int(Scope.STOCK | Scope.READ | Scope.ADMIN)
MAY_READ_OPERATIONS = int(Scope.READ | Scope.ADMIN)


class Caller(NamedTuple):
    """A key that may be used: its id (never its secret) and its scopes."""

    id: str
    secret_hash: bytes
    scopes: int


NOBODY = Caller("", b"", 0)


def scope_bits(scopes: Iterable[str]) -> int:
    """Scopes by name as bits; a name that this version doesn't know grants nothing."""
    return sum({int(NAMES[name]) for name in scopes if name in NAMES})


def unauthenticated() -> Problem:
    """401, with the header that says how to authenticate."""
    return Problem("unauthenticated", headers=[(b"www-authenticate", b"Bearer")])


def bearer_token(authorization: bytes | None) -> bytes:
    """The token of an Authorization header; empty where there is none of the scheme Bearer."""
    if authorization is None or authorization[:7].lower() != b"bearer ":
        return b""
    return authorization[7:].strip()


class KeyTable:
    """All valid keys, by id. `load` reads them from the ledger; the last good table stays while the ledger is away."""

    def __init__(self, load: Callable[[], Awaitable[Mapping[str, Caller]]]) -> None:
        self._load = load
        self._callers: Mapping[str, Caller] | None = None
        self._refreshed_at = -UNKNOWN_KEY_REFRESH_SECONDS
        self._looking: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> bool:
        """Whether the table has been read at least once."""
        return self._callers is not None

    def find(self, token: bytes) -> Caller | None:
        """The caller that `fh_<id>_<secret>` proves; `NOBODY` where it proves nothing whatever the ledger says; None
        where the table doesn't know the id."""
        prefix, _, rest = token.partition(b"_")
        key_id, _, secret = rest.partition(b"_")
        if prefix != b"fh" or not key_id or not secret:
            return NOBODY
        caller = (self._callers or {}).get(key_id.decode("latin-1"))
        if caller is None:
            return None
        # The id is public; only the secret must not leak by the time that its comparison takes.
        return caller if hmac.compare_digest(sha256(secret).digest(), caller.secret_hash) else NOBODY

    async def check(self, authorization: bytes | None, needs: int) -> Caller:
        """Who asks, with one of the scopes `needs`. Raises `Problem`: unauthenticated, forbidden, store-unavailable."""
        token = bearer_token(authorization)
        caller = self.find(token)
        if caller is None:
            await self._look_again()
            if self._callers is None:
                raise Problem("store-unavailable", "The API keys could not be read yet.")
            caller = self.find(token) or NOBODY
        if caller is NOBODY:
            raise unauthenticated()
        if not caller.scopes & needs:
            raise Problem("forbidden")
        return caller

    async def _look_again(self) -> None:
        """An id that the table doesn't know may be brand new: read it again. All who ask in one interval wait for the
        same reading, so that made-up keys cannot cost the ledger more than one query in it."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._refresh_in_turn())
        await asyncio.shield(self._looking)

    async def _refresh_in_turn(self) -> None:
        since = time.monotonic() - self._refreshed_at
        await asyncio.sleep(max(0.0, UNKNOWN_KEY_REFRESH_SECONDS - since))
        # Whoever comes from here on wants a reading that begins later.
        self._looking = None
        await self.refresh()

    async def refresh(self) -> None:
        """Read the table; the last good one stays while the ledger is away."""
        self._refreshed_at = time.monotonic()
        try:
            self._callers = await self._load()
        except FlashHoldError as error:
            _log.warning("api-keys-not-refreshed", reason=str(error))

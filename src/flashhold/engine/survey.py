"""What lua/survey.lua tells of a store: some of its records, queues and shares, each page at one instant."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from flashhold.domain.errors import StoreUnavailable
from flashhold.engine.codec import unpack
from flashhold.engine.keys import partition_keys
from flashhold.engine.link import Link
from flashhold.engine.options import EngineOptions
from flashhold.engine.scripts import load_scripts

RECORDS_MAX = 125
"""Digests a call: 1 ms of the server where they are of few SKUs, 4 where each is of another."""
QUEUE_MAX = 500
REMEMBERED = 8
"""State of a record that is no hold, but an answer that a key is remembered to have got."""

Where = tuple[int, int]
"""epoch, seq: where the store stood when it was asked."""


class Found(NamedTuple):
    """A record. `fault`: what the deadlines lack of a live hold: 'unnamed' (no member of the index names it for some
    pool), 'unwoken' (the sweeper would look at its pool too late), '' (nothing)."""

    state: int
    seq: int
    expires_ms: int
    buyer: str
    lines: tuple[Any, ...]
    metadata: str
    created_ms: int
    epoch: int
    fault: str


class Unreadable(NamedTuple):
    """Bytes that no script wrote."""


Record = Found | Unreadable | None


class Queued(NamedTuple):
    """A slice of a queue: how many it has, and the digests among them that have no record."""

    items: int
    without_record: list[str]


class Live(NamedTuple):
    """Digests and seqs of live holds; `cursor` "0": there are no more."""

    cursor: str
    holds: list[tuple[str, int]]


class Surveyor:
    """Asks one store. Every method also returns where that stood, and may raise `StoreUnavailable`, `Recovering`."""

    def __init__(self, link: Link, options: EngineOptions) -> None:
        self._link = link
        self._keys = partition_keys(options.partition)
        self._script = load_scripts(options.lua_folder).survey
        self.spent_s = 0.0
        """How long the store has taken to answer, in all; waiting for others is in it."""

    async def records(self, digests: Sequence[str]) -> tuple[Where, list[Record]]:
        """At most RECORDS_MAX digests; their records, in order."""
        where, rest = await self._ask("records", *digests)
        return where, [_record(raw) for raw in rest]

    async def queue(self, name: str, first: int, last: int) -> tuple[Where, Queued]:
        """A slice of the queue `ended` or `refused`, both ends as LRANGE has them."""
        where, rest = await self._ask("queue", name, first, last)
        return where, Queued(int(rest[0]), [_text(raw) for raw in rest[1:]])

    async def live(self, cursor: str) -> tuple[Where, Live]:
        """Some of the live holds; from cursor "0" on, until it is "0" again, each at least once."""
        where, rest = await self._ask("live", cursor)
        holds = zip(rest[1::2], rest[2::2], strict=True)
        return where, Live(_text(rest[0]), [(_text(digest), int(seq)) for digest, seq in holds])

    async def shares(self, sku: str, buyers: Sequence[str]) -> tuple[Where, list[str]]:
        """What these buyers of the SKU are counted to hold or have, as it stands there; "0" for those who are not."""
        where, rest = await self._ask("shares", *(f"{sku}\0{buyer}" for buyer in buyers))
        return where, ["0" if raw is None else _text(raw) for raw in rest]

    async def _ask(self, question: str, *arguments: str | int) -> tuple[Where, list[Any]]:
        call = (len(self._keys), *self._keys, question, *arguments)
        began = time.perf_counter()
        try:
            reply = await self._link.call("EVALSHA", self._script.sha, *call)
        except StoreUnavailable as error:
            if "NOSCRIPT" not in str(error):
                raise
            reply = await self._link.call("EVAL", self._script.source, *call)
        finally:
            self.spent_s += time.perf_counter() - began
        return (int(reply[0]), int(reply[1])), reply[2:]


def _record(raw: bytes) -> Record:
    if raw == b"":
        return None
    if raw == b"!":
        return Unreadable()
    try:
        state, seq, expires_ms, buyer, lines, *rest = unpack(raw)
        return Found(state, seq, expires_ms, buyer, tuple(map(tuple, lines)), *rest)
    except (ValueError, TypeError):
        return Unreadable()


def _text(raw: bytes) -> str:
    """Bytes that are none of ours stay visible."""
    return raw.decode(errors="backslashreplace")

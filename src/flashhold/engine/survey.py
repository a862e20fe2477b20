"""What lua/survey.lua tells of a store: some of its records, queues and shares, each page at one instant."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from flashhold.domain.errors import StoreUnavailable
from flashhold.engine.codec import unpack
from flashhold.engine.keys import partition_keys
from flashhold.engine.link import Link
from flashhold.engine.options import EngineOptions
from flashhold.engine.scripts import load_scripts
from flashhold.engine.stored import Record, due_member, record_of

RECORDS_MAX = 200
"""Digests and members a call: about 0.2 ms of the server."""
QUEUE_MAX = 500

PoolName = tuple[str, str]
"""sku, pool."""
Where = tuple[int, int]
"""epoch, seq: where the store stood when it was asked."""


class Wanted(NamedTuple):
    """A record that is asked for. Of a live hold also when it ends, and the numbers of the pools that it has units of:
    so it is asked whether the deadlines name it."""

    digest: str
    expires_ms: int = 0
    numbers: tuple[int, ...] = ()


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

    async def numbers(self, pools: Sequence[PoolName]) -> dict[PoolName, int]:
        """By which the deadlines know these pools; those left out that the store does not have, or not readably."""
        began = time.perf_counter()
        _, values = await self._link.read(self._keys.stock, [f"{sku}\0{pool}" for sku, pool in pools])
        self.spent_s += time.perf_counter() - began
        numbers = {pool: _number(raw) for pool, raw in zip(pools, values, strict=True)}
        return {pool: number for pool, number in numbers.items() if number is not None}

    async def records(self, wanted: Sequence[Wanted]) -> tuple[Where, list[Record]]:
        """The records, in order, of at most RECORDS_MAX digests and members."""
        members = [due_member(number, one.expires_ms, one.digest) for one in wanted for number in one.numbers]
        numbers = list(dict.fromkeys(number for one in wanted for number in one.numbers))
        digests = [one.digest for one in wanted]
        where, answer = await self._ask("records", len(digests), len(members), *digests, *members, *numbers)
        values, named, wakes = answer
        wakes_ms = {n: float("inf") if ms is None else float(ms) for n, ms in zip(numbers, wakes, strict=True)}
        flags = iter(named)
        faults = [_fault(one, [next(flags) for _ in one.numbers], wakes_ms) for one in wanted]
        return where, [record_of(value, fault) for value, fault in zip(values, faults, strict=True)]

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
        where, (units,) = await self._ask("shares", *(f"{sku}\0{buyer}" for buyer in buyers))
        return where, ["0" if raw is None else _text(raw) for raw in units]

    async def _ask(self, question: str, *arguments: bytes | str | int) -> tuple[Where, list[Any]]:
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


def pages(wanted: Sequence[Wanted]) -> Iterable[Sequence[Wanted]]:
    """As many at a time as one call may ask for, and at least one."""
    first = size = 0
    for at, one in enumerate(wanted):
        more = 1 + len(one.numbers)
        if size + more > RECORDS_MAX and at > first:
            yield wanted[first:at]
            first, size = at, 0
        size += more
    if first < len(wanted):
        yield wanted[first:]


def _fault(one: Wanted, named: list[int], wakes_ms: dict[int, float]) -> str:
    if not all(named):
        return "unnamed"
    return "unwoken" if any(wakes_ms[number] > one.expires_ms for number in one.numbers) else ""


def _number(raw: bytes | None) -> int | None:
    """None: what no script wrote."""
    try:
        number = None if raw is None else unpack(raw)[0]
    except (ValueError, TypeError, IndexError):
        return None
    return number if type(number) is int and 0 <= number < 2**32 else None


def _text(raw: bytes) -> str:
    """Bytes that are none of ours stay visible."""
    return raw.decode(errors="backslashreplace")

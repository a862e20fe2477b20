"""Has the store the records that the ledger knows, as it knows them, and do its deadlines name them? Page by page.

The two stores are read one after the other while selling goes on, so what differs is at first a suspicion. It is one
no more once the ledger has come to where the store was looked at: if the ledger says of the hold what it said before,
nothing happened to it meanwhile, and the store was wrong.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from flashhold.domain.idempotency import key_digest
from flashhold.domain.model import HoldState
from flashhold.domain.revival import RevivedHold
from flashhold.engine.engine import Engine
from flashhold.engine.stored import REMEMBERED, Found, Record
from flashhold.engine.survey import QUEUE_MAX, Wanted, Where, pages
from flashhold.ledger.revival import Revival, revival_on

Answer = TypeVar("Answer")
QUEUES = ("ended", "refused")
POOLS_MAX = 500
"""Whose numbers are asked for at a time."""
_STATES = {state.value: state.name.lower() for state in HoldState} | {REMEMBERED: "a remembered answer"}


class Difference(NamedTuple):
    """Two that should be equal and are not. `what` names the check, `where` a pool, an entry, a batch or a hold."""

    what: str
    where: str
    expected: str
    found: str


class Suspect(NamedTuple):
    """A record that was not as the ledger has it. `known`: what the ledger says of the hold that entry `seq` made,
    None where it is not to know one; seq 0: only a record is expected. `seen`: where the store stood."""

    digest: str
    seq: int
    known: RevivedHold | None
    seen: Where
    difference: Difference


class Page(NamedTuple):
    """What a look at some holds came to; `last_seq` 0: there were none any more."""

    holds: int
    last_seq: int
    suspects: list[Suspect]


class RecordsCheck:
    """Compares one partition. `retention_ms`: how far back ended holds and remembered keys are looked for, 0: only
    live ones; `rest`: waited for after every call to the store, told how many seconds that took. Every method may
    raise `StoreUnavailable`, `Recovering`, `LedgerUnavailable`."""

    def __init__(
        self, engine: Engine, ledger: sa.Engine, *, retention_ms: int, rest: Callable[[float], Awaitable[object]]
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._retention_ms = retention_ms
        self._rest = rest
        self.now_ms = 0
        """The store's clock, roughly: before it has been set, everything that the ledger has is recent."""

    async def page(self, after_seq: int, holds_max: int) -> Page:
        """The next holds in the order in which they were made."""
        (page, last_seq), epoch = await asyncio.to_thread(
            self._read, lambda revival: revival.holds_after(after_seq, holds_max)
        )
        suspects = await self._unlike(page.holds, epoch)
        overdue = {one.digest for one in page.overdue}
        suspects += await self.answers([answer.key for answer in page.answers], overdue)
        return Page(len(page.holds), last_seq, suspects)

    async def answers(self, keys: Iterable[str], but: Iterable[str] = ()) -> list[Suspect]:
        """Keys that the store should remember, and does not."""
        digest_of = {key_digest(key): key for key in keys}
        wanted = [Wanted(digest) for digest in digest_of.keys() - set(but)]
        suspects = []
        for seen, digest, record in await self._records(wanted):
            if not isinstance(record, Found):
                difference = Difference("key", digest_of[digest], "remembered", _said(record))
                suspects.append(Suspect(digest, 0, None, seen, difference))
        return suspects

    async def queue(self, name: str, behind: int) -> tuple[int, list[Suspect]]:
        """A slice of a queue of what is to be forgotten, counted from its end: how many it has, and what of it is
        forgotten already. It holds every ended hold and every remembered answer, refusals included."""
        seen, queued = await self._paced(self._engine.survey.queue(name, -behind - QUEUE_MAX, -behind - 1))
        return queued.items, [
            Suspect(digest, 0, None, seen, Difference("record", f"digest {digest}", "remembered", "nothing"))
            for digest in queued.without_record
        ]

    async def unknown(self, cursor: str) -> tuple[str, list[Suspect]]:
        """Live holds of the store that the ledger may not know."""
        seen, live = await self._paced(self._engine.survey.live(cursor))
        return live.cursor, [
            Suspect(digest, seq, None, seen, Difference("record", f"made at {seq}", "no live hold", "one"))
            for digest, seq in live.holds
        ]

    async def unknown_still(self, suspects: Sequence[Suspect]) -> list[Difference]:
        """Of those that `unknown` gave, and up to whose place the ledger has come: the ones that it does not know."""
        if not suspects:
            return []
        known, _ = await asyncio.to_thread(self._read, lambda revival: revival.made(one.seq for one in suspects))
        return [one.difference for one in suspects if known.get(one.seq) != one.digest]

    async def confirmed(self, suspects: Sequence[Suspect]) -> list[Difference]:
        """Which of them are wrong beyond doubt; only once the ledger has come to where each was seen."""
        if not suspects:
            return []
        page, epoch = await asyncio.to_thread(
            self._read, lambda revival: revival.holds_at([one.seq for one in suspects if one.seq])
        )
        now = {hold.seq: hold for hold in page.holds}
        same = [one for one in suspects if one.seen[0] == epoch and now.get(one.seq) == one.known]
        wrong = {one.seq for one in await self._unlike([now[one.seq] for one in same if one.seq], epoch)}
        bare = [Wanted(one.digest) for one in same if not one.seq]
        missing = {digest for _, digest, record in await self._records(bare) if not isinstance(record, Found)}
        return [one.difference for one in same if (one.seq in wrong if one.seq else one.digest in missing)]

    def _read(self, ask: Callable[[Revival], Answer]) -> tuple[Answer, int]:
        """The answer, and the ledger's epoch."""
        with revival_on(
            self._ledger, self._engine.partition, retention_ms=self._retention_ms, now_ms=self.now_ms
        ) as revival:
            return ask(revival), revival.cursor.epoch

    async def _unlike(self, holds: Sequence[RevivedHold], epoch: int) -> list[Suspect]:
        suspects = []
        records = await self._records(await self._wanted(holds))
        for hold, (seen, digest, record) in zip(holds, records, strict=True):
            # A store of another epoch was rebuilt meanwhile: there is nothing to compare.
            if seen[0] == epoch and (unlike := _unlike(hold, record)) is not None:
                difference = Difference("record", f"hold made at {hold.seq}, {unlike[0]}", *unlike[1:])
                suspects.append(Suspect(digest, hold.seq, hold, seen, difference))
        return suspects

    async def _wanted(self, holds: Sequence[RevivedHold]) -> list[Wanted]:
        """Their records, and of live ones that the deadlines name them. A pool that the store does not know is left to
        the check of the counters."""
        pools_of = [_pools(hold) if hold.state == HoldState.HELD else [] for hold in holds]
        pools = list(dict.fromkeys(pool for some in pools_of for pool in some))
        numbers: dict[tuple[str, str], int] = {}
        for at in range(0, len(pools), POOLS_MAX):
            numbers |= await self._paced(self._engine.survey.numbers(pools[at : at + POOLS_MAX]))
        return [
            Wanted(hold.digest, hold.expires_ms, tuple(numbers[pool] for pool in some if pool in numbers))
            for hold, some in zip(holds, pools_of, strict=True)
        ]

    async def _records(self, wanted: Sequence[Wanted]) -> list[tuple[Where, str, Record]]:
        found = []
        for some in pages(wanted):
            seen, records = await self._paced(self._engine.survey.records(some))
            found += [(seen, one.digest, record) for one, record in zip(some, records, strict=True)]
        return found

    async def _paced(self, question: Awaitable[Answer]) -> Answer:
        before_s = self._engine.survey.spent_s
        answer = await question
        await self._rest(self._engine.survey.spent_s - before_s)
        return answer


def _pools(hold: RevivedHold) -> list[tuple[str, str]]:
    """The pools that a live hold has units of, each once."""
    return list(dict.fromkeys((line[0], line[1]) for line in hold.lines if line[2] > 0))


def _unlike(hold: RevivedHold, record: Record) -> tuple[str, str, str] | None:
    """What differs first, what it should be and what it is."""
    if not isinstance(record, Found):
        return "record", "one", _said(record)
    if record.seq > hold.seq and hold.state != HoldState.HELD:
        return (
            None  # its key was used again, as it may where the store had lost its memory; that hold is looked at itself
        )
    if record.state != hold.state:
        return "state", _STATES[hold.state], _STATES.get(record.state, str(record.state))
    live = hold.state == HoldState.HELD
    for name, expected, found in (
        ("seq", hold.seq, record.seq),
        ("lines", tuple(map(_full, hold.lines)), tuple(map(_full, record.lines))),
        ("buyer", hold.buyer, record.buyer),
        ("metadata", hold.metadata, record.metadata),
        ("created_ms", hold.created_ms, record.created_ms),
        ("epoch", hold.epoch, record.epoch),
        ("expires_ms", hold.expires_ms if live else 0, record.expires_ms if live else 0),
        ("deadline", "", record.fault),
    ):
        if expected != found:
            return name, str(expected) or "named in the index of each pool, and woken for in time", str(found)
    return None


def _full(line: tuple[Any, ...]) -> tuple[Any, ...]:
    return line if len(line) > 3 else (*line, 0, 0, 0, False)  # a whole line says nothing of these


def _said(record: Record) -> str:
    return "nothing" if record is None else "what no script wrote"

"""Whether Redis may decide: it stands where the ledger says that it must, or nothing is sold.

Redis is the authority for a decision, Postgres is the memory of all of them. A Redis that has less than the ledger has
lost its tail, was restored from an old backup or is empty: to sell from it would sell again what is sold.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from flashhold import telemetry
from flashhold.domain.errors import (
    Emptied,
    FlashHoldError,
    LedgerConflict,
    LedgerUnavailable,
    Misconfigured,
    NotDurable,
    Recovering,
    StoreUnavailable,
)
from flashhold.domain.instants import rfc3339
from flashhold.engine.engine import Engine
from flashhold.engine.journal import Place
from flashhold.ledger.reader import LedgerPlace, Reader


class Restoration(NamedTuple):
    """Redis was rebuilt from the ledger as it stood at `after_seq`, and goes on under `epoch`. `missing_to_seq`: the
    furthest entry that Redis had shown before, to the restorer or to this process; none is missing where it is
    `after_seq`. `level`: what had been promised for those that were acknowledged."""

    epoch: int
    at_ms: int
    reason: str
    after_seq: int
    missing_to_seq: int
    level: str

    @property
    def missing(self) -> int:
        return self.missing_to_seq - self.after_seq

    def as_json(self) -> dict[str, Any]:
        """For `/readyz`."""
        lost = {"first_seq": self.after_seq + 1, "last_seq": self.missing_to_seq, "entries": self.missing}
        return {
            "epoch": self.epoch,
            "at": rfc3339(self.at_ms),
            "reason": self.reason,
            "after_seq": self.after_seq,
            "durability": self.level,
            "missing": lost if self.missing else None,
        }


class Verdict(NamedTuple):
    """`closed` is why nothing may be decided, None where all is well; `redis`, `ledger`, `place` say it in words.

    `opened`: the two stores have agreed before, in this process. `restored`: the last time that Redis was rebuilt.
    """

    closed: FlashHoldError | None
    redis: str
    ledger: str
    place: str
    opened: bool = False
    restored: Restoration | None = None

    @property
    def ready(self) -> bool:
        return self.closed is None and (self.redis, self.ledger, self.place) == (OK, OK, OK)


Mark = Callable[[str], Awaitable[bool]]
"""Sets a partition's mark in the ledger; False where it has one. Raises `LedgerUnavailable`."""

LEDGER_PATIENCE_S = 1.0
"""For one row by its key while buyers wait for a connection; a ledger that takes longer is away."""

_log = telemetry.logger(__name__)

OK = "ok"
UNKNOWN = "not compared yet"
STARTING = Verdict(StoreUnavailable("the stores have not been compared yet"), UNKNOWN, UNKNOWN, UNKNOWN)


def compare(redis: Place, ledger: LedgerPlace | None) -> str | None:
    """What is wrong between Redis and the ledger, in words; None where Redis stands at the ledger's place or beyond it.

    The ledger's place must have been read first: Redis only moves on, so that it can then never seem to be behind.
    """
    if ledger is None:
        return None
    if ledger.halted:
        return f"the ledger's writer has stopped: {ledger.halted}"
    if (redis.epoch, redis.seq) < (ledger.epoch, ledger.seq):
        return (
            f"Redis stands at epoch {redis.epoch}, seq {redis.seq}, behind the ledger at epoch {ledger.epoch}, "
            f"seq {ledger.seq}: acknowledged entries are missing from it; a worker rebuilds it from the ledger"
        )
    if (redis.epoch, redis.seq) == (ledger.epoch, ledger.seq) and redis.chain != ledger.chain:
        return f"Redis and the ledger have different entries up to epoch {redis.epoch}, seq {redis.seq}"
    return None


def together(verdicts: Mapping[str, Verdict]) -> Verdict:
    """What a deployment of several partitions is told of them: ready where all are, and of each that is not what is
    wrong. One that is closed closes no other, so `closed` is for the words only."""
    if len(verdicts) == 1:
        return next(iter(verdicts.values()))

    def said(member: str) -> str:
        wrong = [f"{name}: {getattr(verdict, member)}" for name, verdict in verdicts.items()
                 if getattr(verdict, member) != OK]  # fmt: skip
        return "; ".join(wrong) or OK

    closed = next((verdict.closed for verdict in verdicts.values() if verdict.closed is not None), None)
    opened = all(verdict.opened for verdict in verdicts.values())
    return Verdict(closed, said("redis"), said("ledger"), said("place"), opened)


async def judge(engine: Engine, reader: Reader, before: Verdict, mark: Mark, *, may_begin: bool = True) -> Verdict:
    """Compare both stores once, making the partition where both are empty and always were (if it `may_begin`).

    Nothing is opened before the ledger has the mark that the partition was made (`mark` sets it, as
    ledger/beginnings.py says), so that what is acknowledged afterwards cannot be taken for never having been.

    With the ledger away, a Redis that has agreed with it `before` goes on deciding; one that has not yet, does not. A
    Redis that has been open and is empty now has lost what it acknowledged, though the ledger be empty too.
    """
    ledger: LedgerPlace | None = None
    ledger_says = OK
    try:
        ledger = await reader.place(engine.partition)
    except (LedgerUnavailable, LedgerConflict) as error:
        ledger_says = str(error)
    try:
        redis = await _place(engine, ledger, mark if ledger_says == OK and not before.opened else None, may_begin)
    except Recovering as error:
        return before._replace(closed=error, redis=OK, ledger=ledger_says, place=str(error))
    except (Misconfigured, NotDurable) as error:
        return before._replace(closed=error, redis=str(error), ledger=ledger_says)
    except StoreUnavailable as error:
        return before._replace(redis=str(error), ledger=ledger_says)
    except LedgerUnavailable as error:
        return before._replace(redis=OK, ledger=str(error))
    if ledger_says != OK:
        return before._replace(redis=OK, ledger=ledger_says)
    wrong = compare(redis, ledger)
    if wrong:
        return before._replace(closed=Recovering(wrong), redis=OK, ledger=OK, place=wrong)
    restored = before.restored
    try:
        if ledger is None or ledger.installed_at is None:
            await mark(engine.partition)
        if ledger is not None and ledger.epoch > (restored.epoch if restored else 1):
            restored = await _restoration(engine, reader)
    except LedgerUnavailable as error:
        return before._replace(redis=OK, ledger=str(error))
    return Verdict(None, OK, OK, OK, opened=True, restored=restored)


async def admit(partition: str, place: Callable[[], Awaitable[Place]], reader: Reader, before: Verdict) -> None:
    """Compare both stores for a connection to Redis that was just made, before anything is decided over it: whom it
    leads to may be another copy than before. Raises Recovering.

    Before they have agreed for the first time nothing is decided anyway, and a partition may have to be made over it.
    With the ledger away, a Redis that has agreed with it before goes on deciding, as `judge` says.
    """
    if not before.opened:
        return
    try:
        async with asyncio.timeout(LEDGER_PATIENCE_S):
            ledger = await reader.place(partition)
    except (LedgerUnavailable, LedgerConflict, TimeoutError):
        return
    wrong = compare(await place(), ledger)
    if wrong:
        raise Recovering(wrong)


async def _restoration(engine: Engine, reader: Reader) -> Restoration | None:
    """What the last restore could not bring back, as far as its restorer or this process knows."""
    last = await reader.last_restore(engine.partition)
    if last is None:
        return None
    after_seq = last.details["after"]["seq"]
    told = (last.details.get("missing") or {}).get("last_seq", after_seq)
    _, shown = engine.seen_before(last.epoch)
    found = Restoration(
        last.epoch, last.at_ms, last.reason, after_seq, max(after_seq, told, shown), last.details.get("durability", "")
    )
    report = _log.error if found.missing else _log.warning
    report("store-was-rebuilt", partition=engine.partition, **found.as_json())
    return found


async def _place(engine: Engine, ledger: LedgerPlace | None, mark: Mark | None, may_begin: bool) -> Place:
    """Redis' place. An empty Redis beside an empty ledger without a mark is a beginning, beside any other a loss;
    without `mark` it is always one."""
    try:
        return await engine.place()
    except Emptied:
        if mark is None:
            raise Recovering(
                "Redis is empty: it has lost what it showed before, or the ledger cannot be asked whether it has. "
                "A worker that has seen it before rebuilds it, or `flashhold restore` does"
            ) from None
        if ledger is not None and (ledger.seq or ledger.epoch > 1):
            raise Recovering(
                f"Redis is empty, but the ledger stands at epoch {ledger.epoch}, seq {ledger.seq}: "
                "a worker rebuilds it from the ledger"
            ) from None
        if not may_begin:
            raise StoreUnavailable("the partition is made once the first one is open") from None
        if (ledger is not None and ledger.installed_at is not None) or not await mark(engine.partition):
            raise Recovering(
                "Redis is empty, but the ledger says that the partition was made before: what it has acknowledged "
                "since has reached no ledger; a worker makes it anew under the next epoch"
            ) from None
    await engine.install()
    return await engine.place()

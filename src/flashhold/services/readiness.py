"""Whether Redis may decide: it stands where the ledger says that it must, or nothing is sold.

Redis is the authority for a decision, Postgres is the memory of all of them. A Redis that has less than the ledger has
lost its tail, was restored from an old backup or is empty: to sell from it would sell again what is sold.
"""

from typing import NamedTuple

from flashhold.domain.errors import (
    FlashHoldError,
    LedgerConflict,
    LedgerUnavailable,
    Misconfigured,
    Recovering,
    StoreUnavailable,
)
from flashhold.engine.engine import Engine
from flashhold.engine.journal import Place
from flashhold.ledger.reader import LedgerPlace, Reader


class Verdict(NamedTuple):
    """`closed` is why nothing may be decided, None where all is well; `redis`, `ledger`, `place` say it in words."""

    closed: FlashHoldError | None
    redis: str
    ledger: str
    place: str

    @property
    def ready(self) -> bool:
        return self.closed is None and (self.redis, self.ledger, self.place) == (OK, OK, OK)


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
            f"seq {ledger.seq}: acknowledged entries are missing from it; run flashhold restore"
        )
    if (redis.epoch, redis.seq) == (ledger.epoch, ledger.seq) and redis.chain != ledger.chain:
        return f"Redis and the ledger have different entries up to epoch {redis.epoch}, seq {redis.seq}"
    return None


async def judge(engine: Engine, reader: Reader, before: Verdict) -> Verdict:
    """Compare both stores once, making the partition where both are empty.

    With the ledger away, a Redis that has agreed with it `before` goes on deciding; one that has not yet, does not.
    """
    ledger: LedgerPlace | None = None
    ledger_says = OK
    try:
        ledger = await reader.place(engine.partition)
    except (LedgerUnavailable, LedgerConflict) as error:
        ledger_says = str(error)
    try:
        redis = await _place(engine, ledger, may_install=ledger_says == OK)
    except Recovering as error:
        return Verdict(error, OK, ledger_says, str(error))
    except Misconfigured as error:
        return Verdict(error, str(error), ledger_says, before.place)
    except StoreUnavailable as error:
        return Verdict(before.closed, str(error), ledger_says, before.place)
    if ledger_says != OK:
        return Verdict(before.closed, OK, ledger_says, before.place)
    wrong = compare(redis, ledger)
    return Verdict(Recovering(wrong) if wrong else None, OK, OK, wrong or OK)


async def _place(engine: Engine, ledger: LedgerPlace | None, may_install: bool) -> Place:
    """Redis' place. An empty Redis beside an empty ledger is a beginning, beside any other a loss."""
    try:
        return await engine.place()
    except Recovering:
        if not may_install:
            raise Recovering("Redis is empty, and the ledger cannot be asked whether that is right") from None
        if ledger is not None and (ledger.seq or ledger.epoch > 1):
            raise Recovering(
                f"Redis is empty, but the ledger stands at epoch {ledger.epoch}, seq {ledger.seq}: "
                "run flashhold restore"
            ) from None
    await engine.install()
    return await engine.place()

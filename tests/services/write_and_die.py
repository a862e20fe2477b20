"""A write-behind that is killed before one of its steps.

`python -m tests.services.write_and_die STEP TURNS REDIS_URL DATABASE_URL`

It goes through TURNS whole turns, then dies without a word before STEP of the next (or, with `end`, after its last).
"""

import os
import sys
from typing import NoReturn

import redis

from flashhold.engine.journal import Journal
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.write_behind import STEPS, Step, WriteBehind, WriteBehindOptions

KILLED = 86


def die(*_: object) -> NoReturn:
    """As kill -9 does: nothing is flushed, rolled back or handed over."""
    os._exit(KILLED)


def main(step: str, turns: str, redis_url: str, database_url: str) -> None:
    names = [one.name for one in STEPS]
    cut = names.index(step) if step != "end" else len(names)
    writer = LedgerWriter(database_url, "p00", holder=f"dies-{os.getpid()}", lease_ms=400)
    options = WriteBehindOptions(batches_max=3, margin_ms=0)
    write_behind = WriteBehind(Journal(redis.Redis.from_url(redis_url), "p00"), writer, options=options)
    for _ in range(int(turns)):
        assert write_behind.turn(block=False)
    write_behind._steps = (*STEPS[:cut], Step("die", die))
    write_behind.turn(block=False)


if __name__ == "__main__":
    main(*sys.argv[1:])

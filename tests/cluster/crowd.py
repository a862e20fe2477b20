"""Buyers at one partition's engine, who ask on whatever happens, and what they were told when."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from flashhold import Applied, Engine, EngineOptions, Line
from flashhold.domain.errors import FlashHoldError
from flashhold.engine.durability import Durability

UNITS = 1_000_000
BUYERS = 4
PAUSE_S = 0.005
PATIENCE_S = 20.0


class Told(NamedTuple):
    """`at`: `time.monotonic`; `wrong`: None for an acknowledged hold."""

    at: float
    hold: str | None
    wrong: FlashHoldError | None


class Crowd:
    """Each buyer makes one hold after the other, all of one unit."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.told: list[Told] = []
        self._leaving = False

    @property
    def wrong(self) -> list[str]:
        """What went wrong, in words."""
        return [str(one.wrong) for one in self.told if one.wrong is not None]

    @property
    def held(self) -> list[str]:
        """Acknowledged holds."""
        return [one.hold for one in self.told if one.hold is not None]

    async def first_hold(self, after: float, patience_s: float) -> float:
        """Seconds from that instant (`time.monotonic`) to the first hold that was acknowledged behind it."""
        async with asyncio.timeout(patience_s):
            while True:
                found = [one.at for one in self.told if one.hold is not None and one.at > after]
                if found:
                    return found[0] - after
                await asyncio.sleep(0.01)

    async def more(self, holds: int = 20) -> None:
        """Wait until so many more holds have been acknowledged."""
        enough = len(self.held) + holds
        until = time.monotonic() + PATIENCE_S
        while len(self.held) < enough:
            assert time.monotonic() < until, f"no more than {len(self.held)} holds: {self.wrong[-3:]}"
            await asyncio.sleep(0.01)

    async def buy(self, name: int) -> None:
        number = 0
        while not self._leaving:
            number += 1
            try:
                outcome = await self.engine.hold(key=f"{name}-{number}", lines=[Line("shoe", 1)])
            except FlashHoldError as error:
                self.told.append(Told(time.monotonic(), None, error))
            else:
                assert isinstance(outcome, Applied)
                self.told.append(Told(time.monotonic(), outcome.value.id, None))
            await asyncio.sleep(PAUSE_S)

    def leave(self) -> None:
        self._leaving = True


@asynccontextmanager
async def crowd_at(
    url: str, partition: str = "p00", durability: Durability = Durability.REPLICA
) -> AsyncIterator[Crowd]:
    """A shop with plenty of shoes and its buyers, for the length of the block."""
    options = EngineOptions(partition=partition, durability=durability)
    async with await Engine.connect(url, options=options) as engine:
        await engine.install()
        await engine.move("receipt", "shoe", UNITS, key="stock")
        crowd = Crowd(engine)
        buyers = [asyncio.create_task(crowd.buy(n)) for n in range(BUYERS)]
        try:
            await crowd.more()
            yield crowd
        finally:
            crowd.leave()
            await asyncio.gather(*buyers)

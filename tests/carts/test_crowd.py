"""Many processes run the same few carts at once, over little stock: they pause, die, sell, give back; time passes."""

import asyncio
import random
from collections import defaultdict
from typing import Any

import pytest

from flashhold import Line
from flashhold.domain import carts, commands
from flashhold.domain.carts import first_digest
from flashhold.domain.errors import StoreUnavailable
from flashhold.domain.idempotency import hold_id
from flashhold.domain.model import HoldState
from flashhold.domain.outcomes import Applied, Refused
from flashhold.domain.reasons import Reason
from tests.carts.dying import Died, Fate, dying_carts
from tests.carts.malls import SKUS, Mall, groups_of, open_mall
from tests.carts.test_dying import settle

STOCK = 7
CARTS = 24


class Crowd:
    """One run. `answers`: what the holders of a key were told; `decided`: what those who sold or gave back were."""

    def __init__(self, mall: Mall, seed: int) -> None:
        self.mall = mall
        self.chance = random.Random(seed)
        self.answers: dict[str, list[Any]] = defaultdict(list)
        self.decided: dict[str, list[Any]] = defaultdict(list)
        self.carts = {f"cart-{n}": self._lines() for n in range(CARTS)}

    def _lines(self) -> tuple[Line, ...]:
        skus = self.chance.sample(sorted(SKUS), self.chance.randint(2, 4))
        if len({SKUS[sku] for sku in skus}) < 2:
            return self._lines()
        return tuple(Line(sku, self.chance.randint(1, 2)) for sku in skus)

    async def pause(self) -> None:
        for _ in range(self.chance.choice((0, 0, 1, 3, 9))):
            await asyncio.sleep(0)

    def process(self) -> Any:
        """A process that may have only some steps to live."""
        fate = Fate(self.chance.choice((None, None, self.chance.randrange(12))), after=self.chance.random() < 0.5)
        return dying_carts(self.mall.engines, fate, self.pause)

    async def actor(self, key: str) -> None:
        process = self.process()
        lines = self.carts[key]
        await asyncio.sleep(self.chance.random() * 0.05)
        first = hold_id(min(groups_of(lines)), first_digest(key), 0)
        try:
            match self.chance.randrange(6):
                case 0 | 1 | 2:
                    outcome = await process.hold(commands.Hold(key, lines, ttl_ms=5_000), groups_of(lines))
                    self.answers[key].append(outcome)
                    if isinstance(outcome, Applied) and self.chance.random() < 0.6:
                        self.decided[key].append(await process.commit(commands.Commit(outcome.value.id, key)))
                case 3:
                    some = tuple(line._replace(quantity=1) for line in self.chance.sample(lines, 1))
                    self.decided[key].append(await process.commit(commands.Commit(first, key, some)))
                case 4:
                    self.decided[key].append(await process.release(commands.Release(first)))
                case 5:
                    await self.mall.pass_time(self.chance.choice((0, 0, 2_000)))
        except Died:
            pass
        except StoreUnavailable as error:  # what a client repeats
            assert "being undone" in str(error), error

    async def run(self) -> None:
        keys = [key for key in self.carts for _ in range(6)]
        self.chance.shuffle(keys)
        await asyncio.gather(*(self.actor(key) for key in keys))

    async def settle(self) -> None:
        """Nobody is under way any more, every deadline passes, the worker follows."""
        await self.mall.pass_time(60_000)
        await self.mall.firsts()
        await settle(self.mall)


def same(outcomes: list[Any]) -> bool:
    return len({repr(outcome._replace(replayed=False)) for outcome in outcomes}) <= 1


@pytest.mark.parametrize("seed", range(6))
async def test_a_crowd_of_processes(one_redis_url: str, database_url: str, seed: int) -> None:
    """One answer a key, for good; one end a cart, for all of its parts; not a unit lost, made or sold twice."""
    async with open_mall(one_redis_url, database_url) as mall:
        await mall.stock(STOCK)
        crowd = Crowd(mall, seed)
        await crowd.run()
        await crowd.settle()
        for key, lines in crowd.carts.items():
            for _ in range(2):
                crowd.answers[key].append(await mall.hold(key, *lines, ttl_ms=5_000))
        assert all(same(answers) for answers in crowd.answers.values())
        await crowd.settle()
        expected = {sku: [STOCK, 0, 0] for sku in SKUS}
        firsts = await mall.firsts()
        for first in firsts:
            assert first.state != HoldState.HELD
            for line in carts.shown(first).lines:
                expected[line.sku][0] -= line.committed
                expected[line.sku][2] += line.committed
        assert await mall.counters() == {sku: tuple(counters) for sku, counters in expected.items()}
        assert await mall.differences() == []
        ends = {first.id: first for first in firsts}
        for outcomes in crowd.decided.values():
            for outcome in outcomes:
                if isinstance(outcome, Applied):
                    assert carts.shown(ends[outcome.value.id]) == outcome.value
                else:
                    assert isinstance(outcome, Refused)
                    assert outcome.reason != Reason.INSUFFICIENT_STOCK
        kinds = {type(answers[-1]).__name__ for answers in crowd.answers.values()}
        assert kinds == {"Applied", "Refused"}, "the run has shown too little"

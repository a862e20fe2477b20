"""A process that runs a cart may die at any step: what it leaves is completed or undone, and nothing is sold twice."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from flashhold import Line
from flashhold.domain import carts, commands
from flashhold.domain.model import Hold, HoldState
from flashhold.domain.outcomes import Outcome, Refused
from flashhold.engine.carts import Carts
from flashhold.services.carts import CartFollower
from tests.carts.dying import Died, Fate, dying_carts
from tests.carts.malls import SKUS, Mall, groups_of, open_mall

CART = (Line("plum", 2), Line("apple", 1), Line("pear", 3))
GREEDY = (Line("apple", 1), Line("pear", 3), Line("plum", 6))
"""More plums than one buyer may have, which only their own partition finds out."""
STOCK = 10_000
LATER_MS = 3_700_000
"""Past every deadline, and past the time for which refusals are remembered."""


@pytest_asyncio.fixture
async def mall(one_redis_url: str, database_url: str) -> AsyncIterator[Mall]:
    async with open_mall(one_redis_url, database_url) as opened:
        await opened.stock(STOCK)
        await opened.engines["p02"].set_policy("plum", {"max_per_buyer": 5}, replace=True)
        yield opened


Act = Callable[[Carts, str, str], Awaitable[Outcome[Hold]]]


async def hold(some: Carts, key: str, _: str) -> Outcome[Hold]:
    return await some.hold(commands.Hold(key, CART, key, 60_000), groups_of(CART))


async def hold_too_much(some: Carts, key: str, _: str) -> Outcome[Hold]:
    return await some.hold(commands.Hold(key, GREEDY, key, 60_000), groups_of(GREEDY))


async def commit(some: Carts, key: str, held: str) -> Outcome[Hold]:
    return await some.commit(commands.Commit(held, "order", key=key))


async def commit_some(some: Carts, _: str, held: str) -> Outcome[Hold]:
    return await some.commit(commands.Commit(held, "order", (Line("pear", 2), Line("plum", 2))))


async def release(some: Carts, key: str, held: str) -> Outcome[Hold]:
    return await some.release(commands.Release(held, "changed mind", key))


ACTS = pytest.mark.parametrize("act", [hold, hold_too_much, commit, commit_some, release])
MOMENTS = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


async def dies(act: Act, mall: Mall, key: str, held: str, step: int, after: bool) -> bool:
    """Whether the act came to this step, where its process died."""
    try:
        await act(dying_carts(mall.engines, Fate(step, after=after)), key, held)
    except Died:
        return True
    return False


async def held_first(mall: Mall, act: Act, key: str) -> str:
    """The cart that the act is about."""
    if act in (hold, hold_too_much):
        return ""
    return (await mall.held(f"cart of {key}", *CART, buyer=key, ttl_ms=60_000)).id


async def settle(mall: Mall) -> None:
    """What the worker does once the grace is over."""
    mall.write_down()
    assert mall.database_url is not None, "carts are followed by the ledger"
    follower = CartFollower(mall.engines, mall.database_url, grace_ms=0)
    await follower.round()
    follower.close()


async def check(mall: Mall) -> None:
    """Units are where the carts say, and every audit is clean."""
    expected = {sku: [STOCK, 0, 0] for sku in SKUS}
    for first in await mall.firsts():
        held = first.state == HoldState.HELD
        for line in carts.shown(first).lines:
            taken = line.quantity if held else line.committed
            expected[line.sku][0] -= taken
            expected[line.sku][1 if held else 2] += taken
    assert await mall.counters() == {sku: tuple(counters) for sku, counters in expected.items()}
    assert await mall.differences() == []


def told(outcome: Outcome[Hold]) -> object:
    """What does not depend on when it was answered."""
    if isinstance(outcome, Refused):
        return outcome.reason, outcome.detail
    return outcome.value.state, outcome.value.lines, outcome.value.reference, outcome.value.reason


@MOMENTS
@ACTS
async def test_who_comes_back_finds_it_done(mall: Mall, act: Act, after: bool) -> None:
    """Dead at any step, the repetition comes to the same as if nobody had died, and does so again."""
    answers = []
    for step in range(40):
        key = f"key-{step}"
        held = await held_first(mall, act, key)
        died = await dies(act, mall, key, held, step, after)
        first = await act(mall.carts, key, held)
        assert await act(mall.carts, key, held) == first._replace(replayed=True)
        answers.append(told(first))
        if not died:
            break
    assert len(answers) > 3, "no step was died at"
    assert all(answer == answers[-1] for answer in answers)
    await settle(mall)
    await check(mall)


@MOMENTS
@ACTS
async def test_who_never_comes_back_is_followed_by_the_worker(mall: Mall, act: Act, after: bool) -> None:
    """Nobody repeats, the deadline passes: what was decided is carried out, the rest is given back; and should the key
    come back at last, it is always told the same."""
    for step in range(40):
        key = f"key-{step}"
        held = await held_first(mall, act, key)
        died = await dies(act, mall, key, held, step, after)
        if not died:
            break
    assert step > 2, "no step was died at"
    await mall.pass_time(LATER_MS)
    assert all(first.state != HoldState.HELD for first in await mall.firsts())
    await settle(mall)
    await check(mall)
    if act in (hold, hold_too_much):
        for late in range(step):
            first = await act(mall.carts, f"key-{late}", "")
            assert await act(mall.carts, f"key-{late}", "") == first._replace(replayed=True)
        await settle(mall)
        await check(mall)

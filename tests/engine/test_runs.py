"""Alike holds that follow each other go through the scripts as one run: nobody may notice."""

import asyncio

import pytest
import redis

from flashhold import Applied, Engine, Line, Reason, Refused
from flashhold.domain.commands import Command, Hold, Move
from tests.engine.duel import Duel

BOOT = (Line("boot", 1),)


@pytest.fixture
async def duel(engine: Engine, redis_url: str) -> Duel:
    """An engine and its reference, with ten boots."""
    duel = await Duel(engine, redis_url).start()
    await duel.one(Move("boots", "receipt", "boot", 10))
    return duel


async def test_a_key_twice_in_a_run(duel: Duel) -> None:
    """The second is a replay of the first, or refused where it means something else."""
    holds: list[Command] = [
        Hold("a", BOOT, "ann"),
        Hold("a", BOOT, "ann"),
        Hold("b", BOOT, "bob"),
        Hold("a", BOOT, "bob"),
    ]
    first, again, other, reused = await duel.run(*holds)
    assert not first.replayed and again == first._replace(replayed=True)
    assert other.value.seq == first.value.seq + 1
    assert reused.reason is Reason.IDEMPOTENCY_KEY_REUSED


async def test_a_run_that_the_stock_ends(duel: Duel) -> None:
    """The first ten get a boot each, the others the same refusal, and each keeps its own answer."""
    holds = [Hold(f"key-{n}", BOOT, f"buyer-{n}") for n in range(14)]
    answers = await duel.run(*holds)
    assert [type(answer) for answer in answers] == [Applied] * 10 + [Refused] * 4
    again = await duel.run(*reversed(holds))
    assert again == [answer._replace(replayed=True) for answer in reversed(answers)]


async def test_a_run_with_known_keys_amid_new_ones(duel: Duel) -> None:
    """Replays break a run into stretches; every new hold has its own place all the same."""
    await duel.run(Hold("b", BOOT, "bob"), Hold("d", BOOT, "dan"))
    answers = await duel.run(
        *(Hold(key, BOOT, who) for key, who in zip("abcde", ("ann", "bob", "cat", "dan", "eve"), strict=True))
    )
    assert [answer.replayed for answer in answers] == [False, True, False, True, False]


async def test_entries_are_in_the_order_in_which_things_happened(duel: Duel) -> None:
    """Holds that expire between those that take their units: the journal tells it so, row by row."""
    await duel.one(Move("more", "receipt", "boot", 60))
    await duel.run(*(Hold(f"late-{n}", BOOT, None, 1) for n in range(70)))
    await duel.pass_time(10)
    wanted = [Hold("most", (Line("boot", 60),)), Hold("rest", (Line("boot", 10),)), Hold("none", BOOT)]
    assert [type(answer) for answer in await duel.run(*wanted)] == [Applied, Applied, Refused]


async def test_what_cannot_be_encoded_is_its_own_callers_failure(engine: Engine) -> None:
    """A lone surrogate fails the one who sent it, not those who share the batch."""
    await engine.move("receipt", "boot", 10, key="boots")
    good, bad = engine.hold(key="a", lines=BOOT, buyer="ann"), engine.hold(key="b", lines=BOOT, buyer="\ud800")
    held, failed = await asyncio.gather(good, bad, return_exceptions=True)
    assert isinstance(held, Applied)
    assert isinstance(failed, UnicodeEncodeError)
    assert (await engine.read_stock("boot")).value.held == 1


async def test_a_thousand_alike_holds_take_one_row(engine: Engine, redis_url: str) -> None:
    """What they share is journalled once a batch: that is what makes them cheap."""
    await engine.move("receipt", "boot", 1_000, key="boots")
    await engine.submit_many([Hold(f"key-{n:04}", BOOT, f"buyer-{n:04}") for n in range(1_000)])
    with redis.Redis.from_url(redis_url) as store:
        payloads = [fields[b"payload"] for _, fields in store.xrange("{p00}:journal")][1:]
    assert sum(map(len, payloads)) < 1_000 * 40

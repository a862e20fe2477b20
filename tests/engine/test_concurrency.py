"""Many buyers, many connections, many processes, one hot SKU: what is sold is exactly what was there."""

import asyncio
import multiprocessing
import random
from collections import Counter
from typing import Any, NamedTuple

import pytest

from flashhold import Applied, Engine, HoldState, Line, Reason, Refused
from flashhold.domain import commands
from flashhold.domain.idempotency import key_digest
from tests.engine.proof import counters_agree, lives, whole_journal

STOCK = 60


async def _buy(engine: Engine, dice: random.Random, buyer: str) -> str | None:
    """One buyer: clicks once to three times at once, then pays, cancels or wanders off. The hold, if there was one."""
    lines = [Line("hot", 1)]
    clicks = [engine.hold(key=f"cart-of-{buyer}", lines=lines, buyer=buyer) for _ in range(dice.randint(1, 3))]
    answers = await asyncio.gather(*clicks)
    assert len({type(answer) for answer in answers}) == 1, "one key, two answers"
    assert sum(not answer.replayed for answer in answers) == 1, "one key, decided more than once"
    if isinstance(answers[0], Refused):
        assert {answer.reason for answer in answers} == {Reason.INSUFFICIENT_STOCK}
        return None
    assert len({answer.value for answer in answers}) == 1
    hold: str = answers[0].value.id
    match dice.random():
        case chance if chance < 0.5:
            await asyncio.gather(*[engine.commit(hold, reference=buyer) for _ in range(2)])
        case chance if chance < 0.7:
            await asyncio.gather(engine.release(hold), engine.release(hold, reason="double click"))
        case chance if chance < 0.8:
            await asyncio.gather(engine.release(hold), engine.commit(hold, reference=buyer))
    return hold


async def _crowd(url: str, name: str, buyers: int, connections: int, seed: int) -> list[str]:
    engines = [await Engine.connect(url) for _ in range(connections)]
    dice = random.Random(seed)
    holds = await asyncio.gather(
        *[_buy(engines[number % connections], dice, f"{name}-{number}") for number in range(buyers)]
    )
    for engine in engines:
        await engine.close()
    return [hold for hold in holds if hold is not None]


def _crowd_in_a_process(url: str, name: str, buyers: int, seed: int, results: Any) -> None:
    results.put(asyncio.run(_crowd(url, name, buyers, 2, seed)))


class Remains(NamedTuple):
    """What is left when all have gone: the holds of the journal, and the SKU's units twice, as the store's counters
    have them and as the holds' ends add up."""

    holds: list[str]
    counted: dict[str, int]
    told: dict[str, int]


async def _remains(engine: Engine, url: str) -> Remains:
    written = whole_journal(url)
    stories = lives(written)
    folded = await counters_agree(engine, written)
    ends = Counter(story[-1] for story in stories.values())
    held, committed = ends["hold"], ends["commit"]
    told = {"available": STOCK - held - committed, "held": held, "committed": committed}
    return Remains(sorted(stories), {bucket: folded["hot", "default", bucket] for bucket in told}, told)


async def test_many_connections(engine: Engine, redis_url: str) -> None:
    """Clicks in duplicate over five connections: one decision a key, and no unit twice."""
    await engine.move("receipt", "hot", STOCK, key="stock")
    accepted = await _crowd(redis_url, "buyer", 400, 5, seed=7)
    left = await _remains(engine, redis_url)
    assert left.holds == sorted(accepted)
    assert left.counted == left.told


async def test_many_processes(engine: Engine, redis_url: str) -> None:
    """Three processes beside each other sell out the same SKU and not one unit more."""
    await engine.move("receipt", "hot", STOCK, key="stock")
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    crowds = [
        spawn.Process(target=_crowd_in_a_process, args=(redis_url, f"process{number}", 150, number, results))
        for number in range(3)
    ]
    for crowd in crowds:
        crowd.start()
    accepted = [await asyncio.to_thread(results.get, True, 60) for _ in crowds]
    for crowd in crowds:
        await asyncio.to_thread(crowd.join, 10)
    left = await _remains(engine, redis_url)
    assert left.holds == sorted(hold for holds in accepted for hold in holds)
    assert left.counted == left.told


async def test_the_same_key_races_on_many_connections(engine: Engine, redis_url: str) -> None:
    """Of two payloads under one key exactly one wins, wherever they come in."""
    await engine.move("receipt", "hot", STOCK, key="stock")
    engines = [await Engine.connect(redis_url) for _ in range(4)]
    for number in range(30):
        answers = await asyncio.gather(
            *[one.hold(key=f"key-{number}", lines=[Line("hot", 1 + at % 2)]) for at, one in enumerate(engines)]
        )
        won = [answer for answer in answers if isinstance(answer, Applied)]
        lost = [answer for answer in answers if isinstance(answer, Refused)]
        assert len({answer.value for answer in won}) == 1
        assert len(won) == 2
        assert {answer.reason for answer in lost} == {Reason.IDEMPOTENCY_KEY_REUSED}
        await engine.release(won[0].value.id)
    for one in engines:
        await one.close()
    stories = lives(whole_journal(redis_url))
    assert len(stories) == 30


async def test_commit_against_expiry(engine: Engine, redis_url: str) -> None:
    """Payments at the very deadline: each hold is either sold or given back, never both, whoever sweeps."""
    await engine.move("receipt", "hot", STOCK, key="stock")
    held = [
        (await engine.hold(key=f"cart-{number}", lines=[Line("hot", 1)], ttl_ms=30 + number)).value.id
        for number in range(STOCK)
    ]
    dice = random.Random(3)

    async def pay(hold: str) -> Any:
        await asyncio.sleep(dice.uniform(0.02, 0.09))
        return await engine.commit(hold, reference="late")

    async def sweep() -> None:
        for _ in range(40):
            await engine.sweep(expire_max=3)
            await asyncio.sleep(0.003)

    answers = (await asyncio.gather(*map(pay, held), sweep(), sweep()))[:STOCK]
    sold = [answer.value.id for answer in answers if isinstance(answer, Applied)]
    assert all(answer.reason is Reason.HOLD_EXPIRED for answer in answers if isinstance(answer, Refused))
    while (await engine.sweep()).expired:
        pass
    stories = lives(whole_journal(redis_url))
    assert sorted(hold for hold, story in stories.items() if story[-1] == "commit") == sorted(sold)
    stock = (await engine.read_stock("hot")).value
    assert (stock.committed, stock.held, stock.available) == (len(sold), 0, STOCK - len(sold))


async def test_cancelled_calls_do_not_shift_answers(engine: Engine, redis_url: str) -> None:
    """Half of the callers go away in the middle; the others still get each their own answer."""
    await engine.move("receipt", "hot", 10_000, key="stock")
    dice = random.Random(11)
    got: dict[str, Any] = {}

    async def ask(key: str) -> None:
        got[key] = await engine.hold(key=key, lines=[Line("hot", 1)], buyer=f"buyer of {key}")

    for wave in range(20):
        tasks = {f"{wave}-{number}": asyncio.create_task(ask(f"{wave}-{number}")) for number in range(50)}
        for _ in range(dice.randint(0, 3)):
            await asyncio.sleep(0)
        for task in dice.sample(list(tasks.values()), 25):
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    for key, answer in got.items():
        assert answer.value.buyer == f"buyer of {key}"
        assert key_digest(key) in answer.value.id
    assert len(got) >= 500
    written = whole_journal(redis_url)
    made = {entry.idempotency_key: entry.hold for entry in written if entry.kind == "hold"}
    assert all(made[key] == answer.value.id for key, answer in got.items())
    await counters_agree(engine, written)
    # What a cancelled call has done is found under its key.
    for number in range(50):
        again = await engine.hold(key=f"0-{number}", lines=[Line("hot", 1)], buyer=f"buyer of 0-{number}")
        assert again.value.state is HoldState.HELD
        assert again.replayed == (f"0-{number}" in made)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 700])
async def test_many_at_once_are_answered_in_order(engine: Engine, redis_url: str, size: int) -> None:
    """Bulk answers come in the order of the commands, also over the edge of a batch."""
    await engine.move("receipt", "hot", 1_000, key="stock")
    answers = await engine.submit_many([commands.Hold(f"key-{number}", (Line("hot", 1),)) for number in range(size)])
    assert [key_digest(f"key-{number}") in answer.value.id for number, answer in enumerate(answers)] == [True] * size
    assert [answer.value.seq for answer in answers] == list(range(2, size + 2))
    assert len(whole_journal(redis_url)) == size + 1

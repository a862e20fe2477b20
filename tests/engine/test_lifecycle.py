"""Every cell of the lifecycle table, carried out on a real server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from flashhold import Applied, Engine, Hold, HoldState, Line, Refused
from flashhold.domain.lifecycle import LIFECYCLE, VERBS, Cell

SOON_MS = 25
"""Long enough to make a hold and look at it, short enough to wait for."""

UNITS = 3


async def _sweep_and_look(engine: Engine, hold: str) -> Any:
    await engine.sweep()
    return await engine.read_hold(hold)


SAY: dict[str, Callable[[Engine, str], Awaitable[Any]]] = {
    "commit": lambda engine, hold: engine.commit(hold, reference="order-1"),
    "commit otherwise": lambda engine, hold: engine.commit(hold, reference="order-2"),
    "commit, reacquire": lambda engine, hold: engine.commit(hold, reference="order-1", reacquire=True),
    "release": lambda engine, hold: engine.release(hold, reason="second thoughts"),
    "extend": lambda engine, hold: engine.extend(hold, ttl_ms=3_600_000),
    "amend": lambda engine, hold: engine.amend(hold, lines=[Line("shoe", 1)]),
    "expire": _sweep_and_look,
}


async def _until_overdue() -> None:
    await asyncio.sleep((SOON_MS + 10) / 1000)


async def _make(engine: Engine, state: HoldState, *, swept: bool, soon: bool) -> str:
    """A hold of three shoes of ten, in the state."""
    await engine.move("receipt", "shoe", 10, key="stock")
    ttl_ms = SOON_MS if soon or state is HoldState.EXPIRED else None
    made = await engine.hold(key="cart", lines=[Line("shoe", UNITS)], buyer="ann", ttl_ms=ttl_ms)
    hold: str = made.value.id
    match state:
        case HoldState.COMMITTED:
            await engine.commit(hold, reference="order-1")
        case HoldState.RELEASED:
            await engine.release(hold)
        case HoldState.EXPIRED:
            await _until_overdue()
            if swept:
                assert (await engine.sweep()).expired == 1
    return hold


async def _counters(engine: Engine) -> tuple[int, int, int]:
    stock = (await engine.read_stock("shoe")).value
    return stock.available, stock.held, stock.committed


COUNTERS: dict[HoldState, Callable[[int], tuple[int, int, int]]] = {
    HoldState.HELD: lambda units: (10 - units, units, 0),
    HoldState.COMMITTED: lambda units: (10 - units, 0, units),
    HoldState.RELEASED: lambda units: (10, 0, 0),
    HoldState.EXPIRED: lambda units: (10, 0, 0),
}
CASES = [(state, verb, True) for state, verb in LIFECYCLE] + [(HoldState.EXPIRED, verb, False) for verb in VERBS]


def _name(case: tuple[HoldState, str, bool]) -> str:
    state, verb, swept = case
    return f"{state.label if swept else 'overdue'}-{verb.replace(' ', '_')}"


@pytest.mark.parametrize("case", CASES, ids=_name)
async def test_cell(engine: Engine, case: tuple[HoldState, str, bool]) -> None:
    """The verb leaves the state, or is refused for the reason, that the table says; refusals change nothing."""
    state, verb, swept = case
    cell = LIFECYCLE[state, verb]
    hold = await _make(engine, state, swept=swept, soon=(state, verb) == (HoldState.HELD, "expire"))
    if verb == "expire":
        await _until_overdue()
        answer = await SAY[verb](engine, hold)
        after = answer
    else:
        before = await engine.read_hold(hold) if swept else None
        answer = await SAY[verb](engine, hold)
        after = await engine.read_hold(hold)
        if cell.refused is not None:
            _is_refused(cell, answer)
            assert before is None or after == before
    if cell.to is not None:
        assert isinstance(answer, Applied)
        assert answer.value.state is cell.to
        assert answer.replayed is cell.replayed
        assert after.value == answer.value
    final = cell.to if cell.to is not None else state
    assert after.value.state is final
    units = 1 if (final, verb) == (HoldState.HELD, "amend") else UNITS
    assert await _counters(engine) == COUNTERS[final](units)


def _is_refused(cell: Cell, answer: Any) -> None:
    assert isinstance(answer, Refused)
    assert answer.reason is cell.refused
    assert not answer.replayed


def test_the_table_is_whole() -> None:
    """Every state has a cell for every verb, and says one thing in it."""
    assert set(LIFECYCLE) == {(state, verb) for state in HoldState for verb in VERBS}
    assert all((cell.to is None) != (cell.refused is None) for cell in LIFECYCLE.values())


@pytest.mark.parametrize("verb", ["commit", "release"])
async def test_repeating_gives_the_same_body(engine: Engine, verb: str) -> None:
    """What ended a hold may be said again and again, and is answered alike each time."""
    hold = await _make(engine, HoldState.HELD, swept=True, soon=False)
    first = await SAY[verb](engine, hold)
    for _ in range(3):
        again = await SAY[verb](engine, hold)
        assert again == Applied(first.value, replayed=True)


async def test_no_hold_expires_early(engine: Engine) -> None:
    """A sweep before the deadline finds nothing; the deadline itself is already too late."""
    await engine.move("receipt", "shoe", 10, key="stock")
    held: list[Hold] = [
        (await engine.hold(key=f"cart-{n}", lines=[Line("shoe", 1)], ttl_ms=5 + n)).value for n in range(5)
    ]
    states = {HoldState.HELD}
    while HoldState.HELD in states:
        await engine.sweep()
        states = {(await engine.read_hold(hold.id)).value.state for hold in held}
    for hold in held:
        ended = (await engine.read_hold(hold.id)).value
        assert ended.state is HoldState.EXPIRED
        assert ended.ended_at_ms >= ended.expires_at_ms

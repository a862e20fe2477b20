"""The three designs that FlashHold is compared with, in the race that decides between them."""

import asyncio
import importlib
from datetime import UTC, datetime, timedelta
from types import ModuleType

import psycopg
import pytest
from loadtests.baselines import shop
from psycopg.rows import dict_row

SKU = "last one"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The baselines are applications: they ask for their database when they are imported."""
    monkeypatch.setenv("BASELINE_DATABASE_URL", "postgresql://nowhere/none")


def baseline(name: str) -> ModuleType:
    return importlib.import_module(f"loadtests.baselines.{name}")


async def race(database_url: str, name: str, keys: tuple[str, str]) -> tuple[int, int]:
    """Two buyers after the last unit, the second asking before the first transaction ends: (acceptances, holds)."""
    take = baseline(name).take
    unique = "" if name == "read_then_write" else "create unique index one_hold_a_key on holds (idempotency_key);"
    with psycopg.connect(database_url, autocommit=True) as setup:
        setup.execute(shop.SCHEMA + unique)
        setup.execute("insert into stock values (%s, 1)", (SKU,))
    deadline = datetime.now(UTC) + timedelta(seconds=60)
    first, second = [await psycopg.AsyncConnection.connect(database_url, row_factory=dict_row) for _ in range(2)]
    async with first, second:
        told = [await take(first, keys[0], SKU, 1, deadline)]
        waiting = asyncio.create_task(take(second, keys[1], SKU, 1, deadline))
        await asyncio.sleep(0.2)  # long enough for its reads; where it locks, it waits for the first
        await first.commit()
        told.append(await waiting)
        await second.commit()
        counted = await (await first.execute("select count(*) as n from holds")).fetchone()
    assert counted is not None
    return sum(row is not None for row in told), counted["n"]


async def test_read_then_write_sells_the_last_unit_twice(empty_database_url: str) -> None:
    """The baseline that must be seen to oversell does."""
    assert await race(empty_database_url, "read_then_write", ("a", "b")) == (2, 2)


async def test_read_then_write_makes_two_holds_of_a_double_click(empty_database_url: str) -> None:
    """Its key is looked up before and stored after."""
    assert await race(empty_database_url, "read_then_write", ("a", "a")) == (2, 2)


@pytest.mark.parametrize("name", ["select_for_update", "conditional_update"])
async def test_the_careful_baselines_sell_the_last_unit_once(empty_database_url: str, name: str) -> None:
    """They are written to be correct; FlashHold is compared with their speed."""
    assert await race(empty_database_url, name, ("a", "b")) == (1, 1)


@pytest.mark.parametrize("name", ["select_for_update", "conditional_update"])
async def test_the_careful_baselines_answer_a_double_click_with_one_hold(empty_database_url: str, name: str) -> None:
    """Both clicks are told of the same hold."""
    assert await race(empty_database_url, name, ("a", "a")) == (2, 1)

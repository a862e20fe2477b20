"""`partition_key` brings SKUs together; a SKU is never in two places, and never lost on the way."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
import redis

from flashhold.domain import commands
from flashhold.domain.errors import StoreUnavailable
from flashhold.domain.model import Line
from flashhold.domain.outcomes import Applied, Refused
from flashhold.domain.places import place_of
from flashhold.domain.reasons import Reason
from flashhold.engine.codec import unpack
from flashhold.engine.engine import Engine
from flashhold.engine.keys import partition_keys
from flashhold.engine.options import EngineOptions
from flashhold.engine.partitions import Partitions
from tests.http.conftest import Api
from tests.partitions.conftest import NAMES, PARTITIONS, audits, skus_by_place

KEYS = {place_of(f"drop-{i}", NAMES): f"drop-{i}" for i in range(200)}
"""A key for each partition."""
_keys = itertools.count()


@pytest_asyncio.fixture
async def engines(one_redis_url: str) -> AsyncIterator[dict[str, Engine]]:
    """An engine a partition, and no ledger."""
    made = {}
    for name in NAMES:
        made[name] = await Engine.connect(one_redis_url, options=EngineOptions(name, PARTITIONS))
        await made[name].install()
    yield made
    for engine in made.values():
        await engine.close()


def put(sku: str, place: str | None = None, **fields: Any) -> commands.SetPolicy:
    """A policy that wants the SKU in this place; none: at its home."""
    key = {} if place is None else {"partition_key": KEYS[place]}
    return commands.SetPolicy(sku, {**fields, **key}, True, None)


def move(sku: str, kind: str, quantity: int = 1) -> commands.Move:
    return commands.Move(f"move-{next(_keys)}", kind, sku, quantity)


def lives_in(url: str, sku: str) -> list[str]:
    """The partitions that take commands for it, all asked at one instant."""
    with redis.Redis.from_url(url) as client, client.pipeline(transaction=True) as asked:
        for name in NAMES:
            asked.hget(partition_keys(name).stock, sku)
        stored = [None if raw is None else unpack(raw) for raw in asked.execute()]
    return [name for name, rules in zip(NAMES, stored, strict=True) if rules and not (len(rules) > 10 and rules[10])]


async def test_skus_of_one_partition_key_are_held_together(shop: Api) -> None:
    """Whatever their names: one key, one partition, one atomic hold; what has no stock yet moves there."""
    skus = [some[0] for some in skus_by_place().values()]
    made = await shop.client.put(f"/v1/skus/{skus[0]}", json={"partition_key": "drop"})
    assert (made.status_code, made.json()["partition"]) == (201, place_of("drop", NAMES))
    for sku in skus[1:3]:  # known before, with a policy that goes with them
        (await shop.client.put(f"/v1/skus/{sku}", json={"safety_stock": 1, "class": "shoe"})).raise_for_status()
    for sku in skus[1:]:
        moved = (await shop.client.patch(f"/v1/skus/{sku}", json={"partition_key": "drop"})).raise_for_status().json()
        assert moved["partition"] == place_of("drop", NAMES)
        known = sku in skus[1:3]
        assert (moved["safety_stock"], moved["class"]) == ((1, "shoe") if known else (0, None))
    for sku in skus:
        (await shop.post("/v1/movements", {"type": "receipt", "sku": sku, "quantity": 5}, key="new")).raise_for_status()
    body = {"lines": [{"sku": sku, "quantity": 1} for sku in skus]}
    hold = await shop.post("/v1/holds", body, key="together")
    assert (hold.status_code, hold.json()["partition"]) == (201, place_of("drop", NAMES))
    again = await shop.post("/v1/holds", body, key="together")
    assert (again.content, again.headers["idempotency-replayed"]) == (hold.content, "true")
    short = {"lines": [{"sku": sku, "quantity": 4} for sku in skus]}
    refused = await shop.post("/v1/holds", short, key="new")
    assert [line["sku"] for line in refused.json()["lines"]] == skus[1:3]
    seen = (await shop.client.get("/v1/availability", params={"sku": skus})).json()
    assert {item["sku"]: item["sellable"] for item in seen["items"]} == {
        sku: 3 if sku in skus[1:3] else 4 for sku in skus
    }
    assert all([(await shop.stock(sku))["held"] == 1 for sku in skus])
    away = await shop.client.patch(f"/v1/skus/{skus[0]}", json={"partition_key": "another drop"})
    assert (away.status_code, away.json()["code"]) == (409, "policy-refused")
    reports = await audits(shop)
    assert all(report.clean for report in reports.values()), reports


async def test_another_process_finds_a_sku_that_has_moved(engines: dict[str, Engine], one_redis_url: str) -> None:
    """What it remembers of the place is wrong by then; the place that the SKU has left says where it went."""
    (sku,) = skus_by_place()["p00"]
    one, other = Partitions(engines), Partitions(engines)
    for place in ("p03", "p01", "p03", "p00", "p05"):
        assert isinstance(await other.submit(move(sku, "receipt")), Applied)
        await other.submit(move(sku, "damage"))
        (await one.submit(put(sku, place))).value  # noqa: B018  an outcome that is a refusal has none
        assert lives_in(one_redis_url, sku) == [place]
        found = await other.read_stock(sku)
        assert isinstance(found, Applied) and found.value.partition == place
        held = await other.submit(commands.Hold(f"h-{next(_keys)}", (Line(sku, 1),)))
        assert isinstance(held, Refused) and held.reason == Reason.INSUFFICIENT_STOCK and held.partition == place
    assert (await other.sellable([sku])) == {sku: {"default": 0}}


async def test_a_repeated_command_of_a_key_moves_nothing_back(engines: dict[str, Engine], one_redis_url: str) -> None:
    """The key is remembered where it was decided, also after the SKU has gone on."""
    (sku,) = skus_by_place()["p00"]
    partitions = Partitions(engines)
    first = put(sku, "p02")._replace(key="first")
    made = await partitions.submit(first)
    assert isinstance(made, Applied) and made.value.created and not made.replayed
    await partitions.submit(put(sku, "p04")._replace(key="second"))
    assert await partitions.submit(first) == made._replace(replayed=True)
    assert lives_in(one_redis_url, sku) == ["p04"]


class Dying:
    """An engine's submit that lets so many commands pass and then the process is gone, before or after the next."""

    def __init__(self, engines: Mapping[str, Engine], steps: int, after: bool) -> None:
        self.left = steps
        self.after = after
        self.engines = {name: _Wrapped(self, engine) for name, engine in engines.items()}


class _Wrapped:
    def __init__(self, dying: Dying, engine: Engine) -> None:
        self._dying, self._engine = dying, engine

    def submit(self, command: Any) -> Any:
        self._dying.left -= 1
        if self._dying.left >= 0:
            return self._engine.submit(command)
        return self._die(command)

    async def _die(self, command: Any) -> None:
        if self._dying.left == -1 and self._dying.after:
            await self._engine.submit(command)
        raise StoreUnavailable("the process was killed")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("merges", [False, True], ids=["put", "patch"])
async def test_a_move_that_was_cut_off_is_completed_by_its_repetition(
    engines: dict[str, Engine], one_redis_url: str, merges: bool, after: bool
) -> None:
    """Wherever the process died: the SKU is never in two places, and in the end in the right one, policy and all."""
    died = 0
    for steps, (sku,) in enumerate([skus_by_place()["p01"] for _ in range(8)]):
        await Partitions(engines).submit(put(sku, None, **{"class": "shoe", "pools": {"default": {"safety_stock": 2}}}))
        wanted = put(sku, "p04", **{} if merges else {"class": "shoe", "pools": {"default": {"safety_stock": 2}}})
        wanted = wanted._replace(replace=not merges, key=f"k-{next(_keys)}")
        dying: Any = Dying(engines, steps, after)
        try:
            await Partitions(dying.engines).submit(wanted)
        except StoreUnavailable:
            died += 1
        assert len(lives_in(one_redis_url, sku)) <= 1
        outcome = await Partitions(engines).submit(wanted)
        assert isinstance(outcome, Applied) and outcome.value.partition == "p04"
        assert (outcome.value.sku_class, outcome.value.pools["default"].safety_stock) == ("shoe", 2)
        assert lives_in(one_redis_url, sku) == ["p04"]
    assert died >= 3, "or nothing was cut off"


async def test_however_many_move_a_sku_it_is_in_one_place(engines: dict[str, Engine], one_redis_url: str) -> None:
    """Movers, receipts and processes that die at any step, all at once; never two places, and at last one more move."""
    chance = random.Random(3)
    skus = [skus_by_place()["p00"][0] for _ in range(4)]

    async def mover() -> None:
        for _ in range(25):
            dying: Any = Dying(engines, chance.choice([1, 2, 3, 4, 5, 99, 99]), chance.random() < 0.5)
            command: Any = put(chance.choice(skus), chance.choice([*NAMES, None]))
            if chance.random() < 0.3:
                command = move(chance.choice(skus), chance.choice(["receipt", "damage"]))
            with contextlib.suppress(StoreUnavailable):
                await Partitions(dying.engines).submit(command)
            found = [lives_in(one_redis_url, sku) for sku in skus]
            assert all(len(places) <= 1 for places in found), found

    await asyncio.gather(*(mover() for _ in range(6)))
    for sku in skus:
        last = Partitions(engines)
        stock = await last.submit(commands.ReadStock(sku)) if lives_in(one_redis_url, sku) else None
        if isinstance(stock, Applied) and stock.value.on_hand:
            await last.submit(move(sku, "adjustment", -stock.value.on_hand))
        outcome = await last.submit(put(sku, "p02"))
        assert isinstance(outcome, Applied), outcome
        assert lives_in(one_redis_url, sku) == ["p02"]

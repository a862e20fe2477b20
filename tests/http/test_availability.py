"""The projection: one read for a crowd, never too old, bounded, and unharmed by whoever goes away."""

import asyncio
from collections.abc import Sequence

import pytest

from flashhold.domain.errors import StoreUnavailable
from flashhold.http import availability
from flashhold.http.availability import Projection


class Store:
    """Counts its readings; each takes a moment."""

    def __init__(self) -> None:
        self.readings: list[list[str]] = []
        self.away = False
        self.takes_s = 0.01

    async def read(self, skus: Sequence[str]) -> dict[str, dict[str, int]]:
        self.readings.append(list(skus))
        await asyncio.sleep(self.takes_s)
        if self.away:
            raise StoreUnavailable
        return {sku: {"default": len(self.readings)} for sku in skus if sku != "unknown"}


async def test_a_crowd_costs_two_reads_at_most() -> None:
    """Whoever asks while a read is under way waits for the next one, which serves them all."""
    store = Store()
    projection = Projection(store.read, 10_000)
    first = asyncio.create_task(projection.look(["a"]))
    await asyncio.sleep(0.005)
    crowd = await asyncio.gather(*(projection.look(["b", f"c{i % 3}"]) for i in range(50)))
    assert (await first)["a"].pools == {"default": 1}
    assert all(seen["b"].pools == {"default": 2} for seen in crowd)
    assert [sorted(skus) for skus in store.readings] == [["a"], ["b", "c0", "c1", "c2"]]


async def test_what_is_fresh_is_not_read_again() -> None:
    """Within `max_age_ms` nothing is read twice, unknown SKUs included; after it everything is."""
    store = Store()
    projection = Projection(store.read, 50)
    await projection.look(["a", "unknown"])
    seen = await projection.look(["unknown", "a"])
    assert (list(seen), seen["unknown"].pools, len(store.readings)) == (["unknown", "a"], None, 1)
    await asyncio.sleep(0.06)
    assert (await projection.look(["a"]))["a"].pools == {"default": 2}


async def test_a_failing_store_fails_who_asked_and_nobody_after() -> None:
    """An error reaches all that waited for the read; the next look reads again."""
    store = Store()
    store.away = True
    projection = Projection(store.read, 1000)
    found = await asyncio.gather(*(projection.look(["a"]) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [StoreUnavailable] * 3
    store.away = False
    assert (await projection.look(["a"]))["a"].pools


async def test_nobody_waits_for_two_slow_reads() -> None:
    """Whoever comes during a read that hangs does not wait for the end of that one and then of his own."""
    store = Store()
    store.takes_s = 0.2
    projection = Projection(store.read, 1000, patience_ms=100)
    began = asyncio.get_running_loop().time()
    first = asyncio.create_task(projection.look(["a"]))
    await asyncio.sleep(0.01)
    found = await asyncio.gather(first, projection.look(["b"]), return_exceptions=True)
    assert [type(one) for one in found] == [StoreUnavailable] * 2
    assert asyncio.get_running_loop().time() - began < 0.18


async def test_one_who_goes_away_takes_the_read_from_nobody() -> None:
    """A cancelled look does not cancel the read that others wait for."""
    projection = Projection(Store().read, 1000)
    going, staying = asyncio.create_task(projection.look(["a"])), asyncio.create_task(projection.look(["a"]))
    await asyncio.sleep(0)
    going.cancel()
    assert (await staying)["a"].pools == {"default": 1}


async def test_made_up_skus_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the projection starts anew, and answers are right all the while."""
    monkeypatch.setattr(availability, "SKUS_KEPT_MAX", 10)
    projection = Projection(Store().read, 10_000)
    for i in range(30):
        seen = await projection.look([f"s{i}", f"s{i - 1}", "unknown"])
        assert (set(seen), seen["unknown"].pools) == ({f"s{i}", f"s{i - 1}", "unknown"}, None)
        assert len(projection._seen) <= 12

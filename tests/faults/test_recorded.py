"""The checker and what a real FlashHold answers to a crowd over HTTP on real stores: no violation in it, and everything
found that is spoiled in it on purpose."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from flashhold.embedded.servers import PostgresServer
from flashhold.engine.journal import Journal
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.write_behind import WriteBehind
from tests.conftest import _fresh_database
from tests.faults.checker import check
from tests.faults.corruptions import corruption
from tests.faults.corruptions_otherwise import otherwise
from tests.faults.corruptions_told import told
from tests.faults.history import Answered, HistoryWriter, Lost, read_history
from tests.faults.recorder import RecordingClient
from tests.faults.spoiling import Corruption, NothingToSpoil, Spoiler, Triple
from tests.faults.views import read_ledger, read_store
from tests.http.conftest import Api, running_api, valkey

SKUS = ["shoe", "sock 😀 {p00}", "hat/€"]
BUYERS = ["ann", "bob", "eve 😀", *(f"buyer {number}" for number in range(20))]


class Visitor:
    """Somebody who does a bit of everything with the verbs, some of it twice at once, some of it given up."""

    def __init__(self, client: RecordingClient, number: int, seed: int) -> None:
        self.client = client
        self.name = f"v{number}"
        self.random = random.Random(f"{seed}-{number}")
        self.keys = 0
        self.holds: list[str] = []

    def key(self) -> str:
        self.keys += 1
        return f"{self.name}-{self.keys}"

    def lines(self) -> list[dict[str, Any]]:
        roll = self.random
        return [{"sku": roll.choice(SKUS), "quantity": roll.randint(1, 4)} for _ in range(roll.choice([1, 1, 2, 3]))]

    async def live(self, steps: int) -> None:
        for _ in range(steps):
            await self.step()

    async def step(self) -> None:
        roll = self.random
        verb = roll.choice(["hold"] * 4 + ["commit", "commit", "release", "extend", "amend", "move", "read", "read"])
        if verb == "hold" or (verb != "move" and not self.holds):
            await self.make()
        elif verb == "move":
            await self.move()
        elif verb == "read":
            about = roll.choice(
                [("read_hold", {"hold": roll.choice(self.holds)}), ("read_stock", {"sku": roll.choice(SKUS)})]
            )
            await self.client.call(*about)
        else:
            await self.change(verb, roll.choice(self.holds))

    async def make(self) -> None:
        roll = self.random
        request: dict[str, Any] = {"lines": self.lines(), "ttl_seconds": roll.choice([1, 1, 60])}
        if roll.random() < 0.7:
            request["buyer"] = roll.choice(["ann", roll.choice(BUYERS)])
        if roll.random() < 0.2:
            request["allow_partial"] = True
        if roll.random() < 0.2:
            request["metadata"] = {"cart": roll.randint(1, 9)}
        for ended in await self.several("hold", request, self.key()):
            if isinstance(ended, Answered) and ended.status == 201:
                self.holds.append(ended.body["id"])

    async def change(self, verb: str, hold: str) -> None:
        roll = self.random
        request: dict[str, Any] = {"hold": hold}
        if verb == "commit":
            request |= {"reference": roll.choice(["r1", "r2"]), "if_expired": roll.choice(["reject", "reacquire"])}
            if roll.random() < 0.2:
                request["lines"] = [{"sku": roll.choice(SKUS), "quantity": 1}]
        elif verb == "extend":
            request["ttl_seconds"] = roll.choice([1, 90])
        elif verb == "amend":
            request["lines"] = self.lines()
        await self.several(verb, request, self.key() if roll.random() < 0.6 else None)

    async def move(self) -> None:
        roll = self.random
        kind = roll.choice(
            ["receipt", "receipt", "receipt", "shipment", "damage", "adjustment", "return", "cancel", "transfer"]
        )
        request: dict[str, Any] = {"type": kind, "sku": roll.choice(SKUS), "quantity": roll.randint(1, 6)}
        if kind == "receipt":
            request["quantity"] = 20
        if kind == "adjustment":
            request |= {"quantity": roll.choice([-7, 3]), "reason": "count"}
        if kind == "transfer":
            request["to_pool"] = "eu"
        if kind in ("cancel", "return") and self.holds and roll.random() < 0.7:
            request["hold"] = roll.choice(self.holds)
        await self.several("move", request, self.key())

    async def several(self, verb: str, request: dict[str, Any], key: str | None) -> list[Answered | Lost]:
        """Sometimes the same twice at once or again later, sometimes another payload under the key, or one given up."""
        roll = self.random.random()
        if roll < 0.1:
            task = asyncio.create_task(self.client.call(verb, request, key=key))
            await asyncio.sleep(self.random.random() * 0.004)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return [await self.client.call(verb, request, key=key)] if self.random.random() < 0.5 else []
        if roll < 0.25:
            return list(await asyncio.gather(*(self.client.call(verb, request, key=key) for _ in range(3))))
        first = await self.client.call(verb, request, key=key)
        if roll < 0.4:
            return [first, await self.client.call(verb, request, key=key)]
        if roll < 0.45 and key is not None and verb == "hold":
            await self.client.call(verb, {**request, "buyer": "mallory"}, key=key)
        return [first]


async def crowd(api: Api, path: Path, seed: int, visitors: int = 8, steps: int = 60) -> None:
    """Fixture's policies and stock, then everybody at once."""
    writer = HistoryWriter(path)
    writer.declared("policy", why="the fixture's")
    limits = {"safety_stock": 2, "oversell_allowance": 1, "max_per_buyer": 12}
    (await api.client.put("/v1/skus/shoe", json=limits)).raise_for_status()
    async with RecordingClient(api.url, api.admin_key, writer, worker="visitors") as client:
        for sku in SKUS:
            await client.call(
                "move", {"type": "receipt", "sku": sku, "quantity": 40}, key=f"first {len(sku)}".replace(" ", "-")
            )
        those = [Visitor(client, number, seed) for number in range(visitors)]
        for _ in range(2):
            async with asyncio.TaskGroup() as tasks:
                for visitor in those:
                    tasks.create_task(visitor.live(steps))
            await asyncio.sleep(1.1)  # the holds of a second are overdue, and some of them wanted again
        for sku in SKUS:
            await client.call("read_stock", {"sku": sku})
    writer.close()


async def recorded(redis_servers: Callable[[str], str], database_url: str, path: Path, seed: int) -> Triple:
    """A history over HTTP, with everything written down in the ledger afterwards."""
    redis_url = valkey(redis_servers)
    with redis.Redis.from_url(redis_url) as store:
        writing = WriteBehind(Journal(store, "p00"), LedgerWriter(database_url, "p00", holder="test"))
        async with running_api(redis_url, database_url) as api:
            await crowd(api, path, seed)
        writing.drain()
        writing.close()
    return read_history(path), read_ledger(database_url), [await read_store(redis_url)]


@pytest.fixture(scope="module")
def real(
    redis_servers: Callable[[str], str],
    postgres: PostgresServer,
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Triple]:
    """One crowd's history, ledger and store, for all tests of the module."""
    path = tmp_path_factory.mktemp("history") / "crowd.jsonl"
    with contextmanager(_fresh_database)(postgres, migrated_template) as database_url:
        yield asyncio.run(recorded(redis_servers, database_url, path, seed=3))


def test_a_real_history_has_no_violation(real: Triple) -> None:
    """What a crowd was told over HTTP is what the ledger and the store say, and much of everything was looked at."""
    verdict = check(*real, level="disk")
    assert verdict.clean, verdict.sentences()
    for what in ("acknowledged", "refused", "unknown", "reused", "read", "entries", "batches", "pools"):
        assert verdict.checked[what] >= 4, verdict.sentences()
    kinds = {entry.kind for entry in real[1].entries}
    assert kinds >= {"hold", "commit", "release", "expire", "extend", "amend", "receipt", "policy"}, kinds


@pytest.mark.parametrize("each", corruption.all + otherwise.all + told.all, ids=lambda c: str(c.name))
def test_a_corruption_of_a_real_history_is_found(real: Triple, each: Corruption) -> None:
    """The same by the kind that the corruption names; those of the journal's bytes only here."""
    for seed in range(3):
        spoiler = Spoiler(real, seed)
        try:
            each.spoil(spoiler)
        except NothingToSpoil as nothing:
            pytest.skip(f"this crowd has not left {nothing}")
        verdict = check(*spoiler.triple(), level="disk")
        assert each.finds in verdict.by_kind, f"seed {seed}: {verdict.sentences()}"

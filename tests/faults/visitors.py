"""Clients of the simulated shops: calls that overlap, get lost, are repeated and are never sent."""

import random
from collections import Counter
from typing import Any

from tests.faults.history import Answered, Declared, History, Invoked, Lost, Operation
from tests.faults.simulator import SKUS, Shop
from tests.faults.views import LedgerView, StoreView, name_of

Triple = tuple[History, LedgerView, list[StoreView]]

STEP_NS = 1_000_000
"""Between two decisions; a call is under way for up to ten of them."""


class Visitors:
    """Makes calls up, has them decided in order, and gives each the times of a call that others overlap."""

    def __init__(self, seed: int) -> None:
        self.roll = random.Random(seed)
        self.shops = {partition: Shop(partition, self.roll) for partition in SKUS}
        self.records: list[tuple[Invoked, Answered | Lost | None]] = []
        self.past: list[tuple[Shop, str, str | None, dict[str, Any]]] = []
        self.holds: dict[str, list[str]] = {partition: [] for partition in SKUS}
        self.now_ns = 10**9
        self.keys = 0

    def key(self) -> str:
        self.keys += 1
        return f"k{self.keys}"

    def run(self, calls: int) -> Triple:
        """A correct triple of about so many calls."""
        for shop in self.shops.values():
            shop.next_batch()
            for sku in SKUS[shop.partition]:
                shop.set_policy(sku, self.roll.choice((0, 0, 2)), self.roll.choice((0, 0, 3)))
                request = {"type": "receipt", "sku": sku, "quantity": 60}
                self.send(shop, "move", self.key(), request)
        while len(self.records) < calls:
            self.step()
        return self.triple()

    def step(self) -> None:
        roll = self.roll
        shop = self.shops[roll.choice(list(SKUS))]
        if roll.random() < 0.5:
            shop.next_batch()
        if roll.random() < 0.02:
            shop.take_back((roll.choice(SKUS[shop.partition]), "default"))
        if self.past and roll.random() < 0.15:
            shop, verb, key, request = roll.choice(self.past[-50:])
            if key is not None and roll.random() < 0.1 and verb == "hold":
                request = {**request, "buyer": "mallory"}
            self.send(shop, verb, key, request)
            return
        verb, request = self.made_up(shop)
        keyed = verb in ("hold", "move") or (not verb.startswith("read") and roll.random() < 0.6)
        self.send(shop, verb, self.key() if keyed else None, request)

    def made_up(self, shop: Shop) -> tuple[str, dict[str, Any]]:
        roll = self.roll
        verbs = ["hold"] * 8 + ["commit"] * 4 + ["release", "release", "extend", "amend", "move", "move", "read_hold"]
        verb = roll.choice([*verbs, "read_stock"])
        skus, holds = SKUS[shop.partition], self.holds[shop.partition][-40:]
        if verb in ("hold", "read_stock") and roll.random() < 0.05:
            skus = (*skus, "ghost")
        if verb == "read_stock":
            return verb, {"sku": roll.choice(skus)}
        if verb == "move":
            return verb, self.movement(skus, holds)
        if verb == "hold" or not holds:
            request: dict[str, Any] = {"lines": self.lines(skus), "ttl_seconds": roll.choice((1, 2, 5, 60))}
            request["buyer"] = roll.choice(("ann", "bob", "eve", "kim"))
            if roll.random() < 0.15:
                request["allow_partial"] = True
            return "hold", request
        request = {"hold": roll.choice([*holds, "hld_none"] if roll.random() < 0.1 else holds)}
        if verb == "commit":
            request |= {"reference": roll.choice(("r1", "r2")), "if_expired": roll.choice(("reject", "reacquire"))}
            if roll.random() < 0.2:
                request["lines"] = [{"sku": roll.choice(skus), "quantity": 1}]
        elif verb == "extend":
            request["ttl_seconds"] = roll.choice((1, 30, 90))
        elif verb == "amend":
            request["lines"] = self.lines(skus)
        elif verb == "release" and roll.random() < 0.5:
            request["reason"] = "changed mind"
        return verb, request

    def lines(self, skus: tuple[str, ...]) -> list[dict[str, Any]]:
        count = self.roll.choice((1, 1, 1, 2, 3))
        return [{"sku": self.roll.choice(skus), "quantity": self.roll.randint(1, 4)} for _ in range(count)]

    def movement(self, skus: tuple[str, ...], holds: list[str]) -> dict[str, Any]:
        roll = self.roll
        kind = roll.choice(("receipt", "receipt", "shipment", "damage", "adjustment", "return", "cancel", "transfer"))
        request: dict[str, Any] = {"type": kind, "sku": roll.choice(skus), "quantity": roll.randint(1, 5)}
        if kind == "receipt":
            request["quantity"] = roll.randint(5, 30)
        elif kind == "adjustment":
            request |= {"quantity": roll.choice((-20, -6, 4)), "reason": "count"}
        elif kind == "transfer":
            request["to_pool"] = "eu"
        elif kind in ("return", "cancel") and holds:
            request["hold"] = roll.choice(holds)
            request["quantity"] = 1
        return request

    def send(self, shop: Shop, verb: str, key: str | None, request: dict[str, Any]) -> None:
        """Decided now; sent before, answered afterwards, or neither."""
        roll = self.roll
        self.now_ns += STEP_NS
        id = len(self.records) + 1
        sent_ns = self.now_ns - roll.randrange(1, 10 * STEP_NS)
        invoked = Invoked(id, sent_ns, "sim", verb, key, request)
        chance = roll.random()
        if chance < 0.03:
            self.records.append((invoked, Lost(id, self.now_ns + 1, "never arrived")))
            return
        if chance < 0.04:
            self.records.append((invoked, Answered(id, self.now_ns + 1, 429, None, {"code": "overloaded"})))
            return
        status, replayed, body = shop.decide(verb, key, request)
        if verb == "hold" and status == 201 and not replayed:
            self.holds[shop.partition].append(body["id"])
        answered_ns = self.now_ns + roll.randrange(1, 10 * STEP_NS)
        if chance < 0.10:
            self.records.append((invoked, Lost(id, answered_ns, "no answer in time") if chance < 0.09 else None))
        else:
            self.records.append((invoked, Answered(id, answered_ns, status, replayed, body)))
        self.past.append((shop, verb, key, request))

    def triple(self) -> Triple:
        operations = [Operation(*record) for record in sorted(self.records, key=lambda record: record[0].at_ns)]
        history = History(operations, [], [Declared(0, "policy", None, "the fixture's")])
        entries = [entry for shop in self.shops.values() for entry in shop.entries]
        balances = {
            (shop.partition, *place): tuple(pool.units)
            for shop in self.shops.values()
            for place, pool in shop.pools.items()
        }
        return history, LedgerView(entries, balances), [_store(shop) for shop in self.shops.values()]


def _store(shop: Shop) -> StoreView:
    pools: dict[tuple[str, str], tuple[int, ...]] = {
        place: (*pool.units[1:], pool.safety, pool.allowance) for place, pool in shop.pools.items()
    }
    named = Counter(
        (hold["expires"], name_of(hold["id"]))
        for hold in shop.holds.values()
        if hold["state"] == "held"
        for _ in {(line[0], line[1]) for line in hold["lines"] if line[2]}
    )
    return StoreView(shop.partition, (shop.epoch, shop.seq), pools, named, shop.now)


def correct(seed: int, calls: int = 300) -> Triple:
    """A correct history of so many calls, its ledger and its stores."""
    return Visitors(seed).run(calls)

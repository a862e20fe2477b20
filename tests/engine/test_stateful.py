"""Hypothesis invents batches; the engine and the reference must agree on every answer, entry and counter."""

import asyncio
import os
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from flashhold import Engine, EngineOptions
from flashhold.domain import commands
from flashhold.domain.model import Line
from tests.engine.duel import Duel

SEED = int(os.environ.get("FLASHHOLD_SEED", "20261121"))
EXAMPLES = int(os.environ.get("FLASHHOLD_EXAMPLES", "100"))
FOREVER_MS = 10**13
"""Keys are remembered this long here: forgetting has tests of its own."""

SKUS = ("shoe", "{p00}:sock", "🧦 a:b")
NEW = "new"
"""Stands for a key that nobody has used yet."""
OTHER_KEYS = [f"any-{n}" for n in range(4)]

quantities = st.one_of(st.integers(1, 4), st.sampled_from([7, 1_000_000_000]))
pools = st.sampled_from(["default", "default", "default", "eu"])
lines = st.lists(st.builds(Line, st.sampled_from(SKUS), quantities, pools), min_size=1, max_size=3).map(tuple)
buyers = st.sampled_from([None, "ann", "ann", "bob"])
keys = st.one_of(st.none(), st.none(), st.sampled_from(OTHER_KEYS))
ttls_ms = st.sampled_from([None, 1, 20, 1_000, 600_000, 86_400_000, 86_400_001])
some_holds = st.one_of(st.just(0), st.integers(0, 12)).map("#{}".format)
"""`#3` stands for the fourth latest hold, counted round."""

holding = st.builds(
    commands.Hold,
    key=st.sampled_from([NEW] * 9 + OTHER_KEYS[:1]),
    lines=lines,
    buyer=buyers,
    ttl_ms=ttls_ms,
    allow_partial=st.booleans(),
    metadata=st.sampled_from([None, '{"cart":"7"}']),
)
references = st.sampled_from([None, "order-1", "order-2"])
committing = st.builds(
    commands.Commit, some_holds, references, st.one_of(st.none(), st.none(), lines), st.booleans(), keys
)
releasing = st.builds(commands.Release, some_holds, st.sampled_from([None, "changed my mind"]), keys)
extending = st.builds(commands.Extend, some_holds, st.sampled_from([1, 1_000, 700_000, 90_000_000]), keys)
amending = st.builds(commands.Amend, some_holds, lines, keys)
MOVE_KEYS = st.sampled_from([NEW] * 9 + OTHER_KEYS[:1])
no = st.none()


def movements(kinds: list[str], units: Any, *, reason: Any = no, reference: Any = no, hold: Any = no) -> Any:
    """Movements of these kinds within one pool."""
    return st.builds(
        commands.Move,
        MOVE_KEYS,
        st.sampled_from(kinds),
        st.sampled_from(SKUS),
        units,
        pools,
        reason,
        reference,
        hold,
        no,
        st.just(False),
        no,
    )


receiving = movements(["receipt"], quantities, reference=st.sampled_from([None, "delivery-1"]))
moving = movements(
    ["shipment", "return", "damage", "cancel"],
    quantities,
    reason=st.sampled_from([None, "wet"]),
    hold=st.one_of(no, some_holds),
)
adjusting = movements(["adjustment"], st.sampled_from([-3, -1, 2]), reason=st.just("recount"))
transferring = st.tuples(MOVE_KEYS, st.sampled_from(SKUS), quantities, st.booleans()).map(
    lambda drawn: commands.Move(
        drawn[0],
        "transfer",
        drawn[1],
        drawn[2],
        pool="default" if drawn[3] else "eu",
        to_pool="eu" if drawn[3] else "default",
    )
)
pool_rules = st.dictionaries(
    st.sampled_from(["safety_stock", "oversell_allowance"]), st.sampled_from([None, 0, 1, 3]), max_size=2
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "class": st.sampled_from([None, "fragile"]),
        "hold_ttl_ms": st.sampled_from([None, 10, 900_000]),
        "hold_ttl_max_ms": st.sampled_from([None, 1_000_000, 50]),
        "max_per_buyer": st.sampled_from([None, 1, 3]),
        "opens_at_ms": st.sampled_from([None, -5, 5]),
        "closes_at_ms": st.sampled_from([None, 5, 1_000_000]),
        "partition_key": st.sampled_from([None, "drop"]),
        "durability": st.sampled_from([None, "memory", "disk"]),
        "pools": st.dictionaries(st.sampled_from(["default", "eu"]), pool_rules, max_size=2),
    },
)
ruling = st.builds(commands.SetPolicy, st.sampled_from(SKUS), rules, st.booleans(), keys, st.just(""), st.just(0))
reading = st.one_of(
    st.builds(commands.ReadHold, some_holds), st.builds(commands.ReadStock, st.sampled_from(SKUS), pools)
)
anything = st.one_of(
    holding,
    holding,
    holding,
    receiving,
    committing,
    committing,
    releasing,
    extending,
    amending,
    amending,
    moving,
    adjusting,
    transferring,
    ruling,
    reading,
)


class Shop(RuleBasedStateMachine):
    """A shop in which everything happens that can, in any order."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.sent: list[Any] = []
        self.engine: Engine | None = None
        self.duel: Duel | None = None
        self.agreed = True
        self.keys_used = 0

    def wait_for(self, awaitable: Any) -> Any:
        self.agreed, agreed = False, self.agreed
        result = self.loop.run_until_complete(awaitable)
        self.agreed = agreed
        return result

    @initialize(stock=st.integers(1, 6), known=st.integers(1, len(SKUS)))
    def open(self, stock: int, known: int) -> None:
        """An empty store, some SKUs whose buyers are counted, a few units of each in both pools."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        options = EngineOptions(retention_ms=FOREVER_MS, refused_retention_ms=FOREVER_MS)
        self.engine = self.wait_for(Engine.connect(self.url, options=options))
        self.wait_for(self.engine.install())
        self.duel = self.wait_for(Duel(self.engine, self.url).start())
        first: list[Any] = [
            commands.Move(f"first {sku} {pool}", "receipt", sku, stock, pool)
            for sku in SKUS[:known]
            for pool in ("default", "eu")
        ]
        # A limit set and lifted: from the first limit on a SKU's buyers are counted exactly.
        first += [commands.SetPolicy(sku, rules, True) for rules in ({"max_per_buyer": 1}, {}) for sku in SKUS[:known]]
        self.wait_for(self.duel.run(*first))

    @rule(batch=st.lists(anything, min_size=1, max_size=6))
    def trade(self, batch: list[Any]) -> None:
        """One atomic batch of anything."""
        self.send([self.settled(command) for command in batch])

    @rule(which=st.lists(st.integers(0, 200), min_size=1, max_size=3))
    def retry(self, which: list[int]) -> None:
        """Commands sent before are sent again, twice in one batch."""
        if self.sent:
            again = [self.sent[number % len(self.sent)] for number in which]
            self.send(again + again)

    @rule(ms=st.sampled_from([1, 4, 19, 20, 1_000, 599_999, 600_000]))
    def wait(self, ms: int) -> None:
        """Time passes."""
        self.wait_for(self.duel.pass_time(ms))

    @rule(most=st.sampled_from([1, 2, 256]))
    def sweep(self, most: int) -> None:
        """A sweeper comes by."""
        self.wait_for(self.duel.sweep(most))

    def send(self, batch: list[Any]) -> None:
        self.wait_for(self.duel.run(*batch))
        self.sent += batch

    def settled(self, command: Any) -> Any:
        """The command with `#3` made the id of a hold, `new` a key, and times from now instants."""
        named = getattr(command, "hold", None)
        if named is not None:
            holds = self.duel.holds or ["hld_00" + "x" * 14 + "1"]
            command = command._replace(hold=holds[-1 - int(named[1:]) % len(holds)])
        if getattr(command, "key", None) == NEW:
            self.keys_used += 1
            command = command._replace(key=f"key-{self.keys_used}")
        if isinstance(command, commands.SetPolicy):
            fields = {
                name: value + self.duel.reference.now_ms if name.endswith("_at_ms") and value is not None else value
                for name, value in command.fields.items()
            }
            command = command._replace(fields=fields)
        return command

    def teardown(self) -> None:
        try:
            if self.duel is not None and self.agreed:
                self.wait_for(self.duel.compare_everything())
        finally:
            if self.duel is not None:
                self.duel.close()
            if self.engine is not None:
                self.wait_for(self.engine.close())
            self.loop.close()


@pytest.mark.timeout(300)
def test_engine_and_reference_agree(redis_url: str) -> None:
    """Whatever is sent, in whatever order, the engine answers and writes what the reference says."""
    print(f"FLASHHOLD_SEED={SEED} FLASHHOLD_EXAMPLES={EXAMPLES}")
    here = type("ShopHere", (Shop,), {"url": redis_url})
    run_state_machine_as_test(
        seed(SEED)(here),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            database=None,
            print_blob=False,
            verbosity=Verbosity.normal,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )

"""A seeded crowd: buyers, clerks and retries that between them send everything that can be sent.

Hypothesis looks for the one odd batch and shrinks it; the crowd sees to it that the ordinary course of a busy shop,
with all that can happen in it, is tried at every run.
"""

import random
from collections import Counter
from typing import Any

from flashhold.domain import commands
from flashhold.domain.model import Line
from flashhold.domain.outcomes import Applied, Refused
from tests.engine.duel import Duel

SKUS = ("shoe", "{p00}:sock", "🧦 a:b")
RUSHED = "boot"
"""Never limited, so that its holds take the short ways through the scripts."""
POOLS = ("default", "default", "default", "eu")
NOBODYS = "hld_00" + "x" * 14 + "1"


class Crowd:
    """Sends `batches` of random commands through a duel; `seen` counts (verb, outcome)."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.keys = 0
        self.sent: list[Any] = []
        self.seen: Counter[tuple[str, str]] = Counter()

    async def live(self, duel: Duel, batches: int) -> None:
        """Open the shop and trade; ends with everything read on both sides."""
        opening: list[Any] = [
            commands.Move(self._new_key(), "receipt", sku, self.random.randint(2, 12), pool)
            for sku in SKUS[: self.random.randint(2, 3)]
            for pool in ("default", "eu")
        ]
        opening.append(commands.Move(self._new_key(), "receipt", RUSHED, self.random.randint(2, 12)))
        # From the first limit on a SKU's buyers are counted exactly; so it comes before the first hold.
        opening += [commands.SetPolicy(sku, rules, True) for rules in ({"max_per_buyer": 1}, {}) for sku in SKUS]
        await self._send(duel, opening)
        for _ in range(batches):
            match self.random.random():
                case chance if chance < 0.12:
                    await duel.pass_time(self.random.choice([1, 4, 5, 19, 20, 1_000, 599_999, 600_000]))
                case chance if chance < 0.17:
                    await duel.sweep(self.random.choice([1, 2, 256]))
                case chance if chance < 0.35:
                    await self._send(duel, self._rush(duel))
                case _:
                    await self._send(duel, [self._command(duel) for _ in range(self.random.randint(1, 7))])
        await self._at_the_edges(duel)
        await duel.compare_everything()

    def _rush(self, duel: Duel) -> list[Any]:
        """Buyers who want the same at once, some of them twice; now and then something else happens amid them."""
        like = self._holding(duel, "")._replace(
            lines=(Line(RUSHED, self.random.choice([1, 1, 1, 2])),), allow_partial=False
        )
        if self.random.random() < 0.1:
            like = like._replace(lines=(*like.lines, Line(RUSHED, 1, "eu")))
        rush: list[Any] = [
            like._replace(key=self._key(), buyer=self.random.choice([None, "ann", "bob"]))
            for _ in range(self.random.randint(2, 20))
        ]
        for _ in range(self.random.choice([0, 0, 0, 1, 2])):
            amid = [
                self.random.choice(rush),
                commands.Release(self._hold_id(duel), None, self._maybe_key()),
                commands.Extend(self._hold_id(duel), self.random.choice([1, 700_000])),
                commands.Commit(self._hold_id(duel), None, None, self.random.random() < 0.5, self._maybe_key()),
                commands.Move(self._new_key(), "receipt", RUSHED, 1),
                commands.ReadStock(RUSHED),
                like._replace(key=self._new_key(), ttl_ms=20),
            ]
            rush.insert(self.random.randrange(len(rush)), self.random.choice(amid))
        return rush

    async def _at_the_edges(self, duel: Duel) -> None:
        """The last and the first millisecond of a sale and of a hold, which chance would seldom meet."""
        await duel.run()  # so that the reference knows the time
        opens_ms = duel.reference.now_ms + 60_000
        times = {"opens_at_ms": opens_ms, "closes_at_ms": opens_ms + 10}
        late = {"hold_ttl_ms": 10, "pools": {"default": {"oversell_allowance": 9}}}
        await self._send(duel, [commands.SetPolicy(SKUS[0], times | late, True)])
        for wait_ms in (opens_ms - 1 - duel.reference.now_ms, 1, 9, 1):
            await duel.pass_time(wait_ms)
            holding = commands.Hold(self._new_key(), (Line(SKUS[0], 1),))
            await self._send(duel, [holding, *map(commands.ReadHold, duel.holds[-2:])])

    async def _send(self, duel: Duel, batch: list[Any]) -> None:
        for command, answer in zip(batch, await duel.run(*batch), strict=True):
            self.seen[_verb(command), _outcome(answer)] += 1
        self.sent += batch

    def _new_key(self) -> str:
        self.keys += 1
        return f"key-{self.keys}"

    def _key(self) -> str:
        """Mostly new; now and then one that another command has used."""
        return self._new_key() if self.random.random() < 0.93 else f"key-{self.random.randint(1, self.keys + 1)}"

    def _maybe_key(self) -> str | None:
        return self._key() if self.random.random() < 0.3 else None

    def _hold_id(self, duel: Duel) -> str:
        """Mostly one of the latest holds."""
        if not duel.holds or self.random.random() < 0.02:
            return NOBODYS
        latest = duel.holds[-4:] if self.random.random() < 0.8 else duel.holds
        return self.random.choice(latest)

    def _units(self) -> int:
        return self.random.choice([1, 1, 1, 2, 2, 3, 5]) if self.random.random() < 0.97 else 1_000_000_000

    def _line(self) -> Line:
        return Line(self.random.choice(SKUS), self._units(), self.random.choice(POOLS))

    def _lines(self) -> tuple[Line, ...]:
        return tuple(self._line() for _ in range(self.random.choice([1, 1, 1, 2, 3])))

    def _lines_near(self, duel: Duel, hold: str) -> tuple[Line, ...]:
        """Lines like those of a hold: the same, fewer or more units, sometimes another SKU."""
        claim = duel.reference.books.claims().get(hold)
        if claim is None or self.random.random() < 0.15:
            return self._lines()
        near = [
            Line(line.sku, max(1, line.quantity + self.random.choice([-1, 0, 0, 1])), line.pool) for line in claim.lines
        ]
        return tuple(near[: self.random.randint(1, len(near))])

    def _command(self, duel: Duel) -> Any:
        if self.sent and self.random.random() < 0.12:
            return self.random.choice(self.sent[-25:])
        makers = {
            self._holding: 30,
            self._committing: 14,
            self._releasing: 6,
            self._extending: 6,
            self._amending: 10,
            self._moving: 18,
            self._ruling: 6,
            self._reading: 5,
        }
        make = self.random.choices(list(makers), list(makers.values()))[0]
        return make(duel, self._hold_id(duel))

    def _holding(self, _: Duel, __: str) -> commands.Hold:
        ttl_ms = self.random.choice([None, None, 1, 20, 20, 1_000, 600_000, 86_400_000, 86_400_001])
        buyer = self.random.choice([None, "ann", "ann", "bob"])
        metadata = self.random.choice([None, '{"cart":"7"}'])
        return commands.Hold(self._key(), self._lines(), buyer, ttl_ms, self.random.random() < 0.3, metadata)

    def _committing(self, duel: Duel, hold: str) -> commands.Commit:
        lines = self._lines_near(duel, hold) if self.random.random() < 0.4 else None
        reference = self.random.choice([None, "order-1", "order-2"])
        return commands.Commit(hold, reference, lines, self.random.random() < 0.5, self._maybe_key())

    def _releasing(self, _: Duel, hold: str) -> commands.Release:
        return commands.Release(hold, self.random.choice([None, "changed my mind"]), self._maybe_key())

    def _extending(self, _: Duel, hold: str) -> commands.Extend:
        return commands.Extend(hold, self.random.choice([1, 1_000, 700_000, 90_000_000]), self._maybe_key())

    def _amending(self, duel: Duel, hold: str) -> commands.Amend:
        return commands.Amend(hold, self._lines_near(duel, hold), self._maybe_key())

    def _reading(self, _: Duel, hold: str) -> Any:
        if self.random.random() < 0.5:
            return commands.ReadHold(hold)
        return commands.ReadStock(self.random.choice(SKUS), self.random.choice(POOLS))

    def _moving(self, duel: Duel, hold: str) -> commands.Move:
        kind = self.random.choice(
            ["receipt", "receipt", "shipment", "return", "damage", "adjustment", "transfer", "cancel", "cancel"]
        )
        sku, pool, units = self._line()[0], self.random.choice(POOLS), self._units()
        named = None
        claim = duel.reference.books.claims().get(hold)
        if claim is not None and kind in ("return", "cancel", "shipment") and self.random.random() < 0.7:
            named, line = hold, self.random.choice(claim.lines)
            sku, pool = line.sku, line.pool
        return commands.Move(
            self._key(),
            kind,
            sku,
            self.random.choice([-3, -1, 2]) if kind == "adjustment" else units,
            pool,
            "recount" if kind == "adjustment" else self.random.choice([None, "wet"]),
            self.random.choice([None, "delivery-1"]),
            named,
            ("eu" if pool == "default" else "default") if kind == "transfer" else None,
        )

    def _ruling(self, duel: Duel, _: str) -> commands.SetPolicy:
        now_ms = duel.reference.now_ms
        choices: dict[str, list[Any]] = {
            "class": [None, "fragile"],
            "hold_ttl_ms": [None, 10, 900_000],
            "hold_ttl_max_ms": [None, 1_000_000, 50],
            "max_per_buyer": [None, 1, 3],
            "opens_at_ms": [None, now_ms - 5, now_ms + 5],
            "closes_at_ms": [None, now_ms + 5, now_ms + 20, now_ms + 600_000],
            "partition_key": [None, "drop"],
            "durability": [None, "memory", "disk"],
            "pools": [{"default": {"safety_stock": 1}}, {"eu": {"oversell_allowance": 2, "safety_stock": 0}}, {}],
        }
        fields = {name: self.random.choice(values) for name, values in choices.items() if self.random.random() < 0.25}
        return commands.SetPolicy(self.random.choice(SKUS), fields, self.random.random() < 0.4, self._maybe_key())


def _verb(command: Any) -> str:
    return command.kind if isinstance(command, commands.Move) else type(command).__name__


def _outcome(answer: Any) -> str:
    if isinstance(answer, Refused):
        return answer.reason.value
    assert isinstance(answer, Applied)
    return "replayed" if answer.replayed else "applied"

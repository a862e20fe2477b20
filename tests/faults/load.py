"""A crowd that does everything clients do, well-behaved or not, at a bounded rate, and writes down what it is told.

What each buyer does is drawn from a seed of its own, so a run asks the same questions again; when they arrive, and so
what they meet, is the machine's affair.
"""

import asyncio
import contextlib
import random
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.faults.history import Answered, Lost
from tests.faults.recorder import RecordingClient

HOT = "hot"
SKUS = (HOT, *(f"sku-{n}" for n in range(8)))
HOT_UNITS = 60
UNITS = 1_000_000
HELD_MAX = 40
"""Holds that a buyer keeps in mind; an older one is left to its deadline."""
SHORT_TTL_S = (1, 2)
LEAVING_S = 5.0
"""What a buyer still repeats when the crowd is asked to leave."""
LONG_TTL_S = 3_600
"""Beyond the end of every run: what is still held then stays held, and the stores can come to rest."""

Request = dict[str, Any]
Call = tuple[str, Request, str | None]


@dataclass(frozen=True)
class Mix:
    """How often (weights) a buyer does what, and what part (0 to 1) of the changes is sent in an odd way."""

    hold: int = 40
    commit: int = 16
    commit_part: int = 5
    release: int = 14
    extend: int = 4
    amend: int = 6
    replay: int = 5
    reuse: int = 2
    receive: int = 2
    move: int = 2
    read_stock: int = 3
    read_hold: int = 3

    at_once: float = 0.05
    """The same request 2 to 5 times at the same moment."""
    cancelled: float = 0.02
    """Given up by the client after 0-10 ms; then mostly, but not always, repeated."""
    given_up: float = 0.1
    """Unknown answers that nobody asks about again."""
    repeat_s: float = 30.0
    """How long a buyer repeats an unknown request."""

    alone: float = 0.0
    """Holds of one SKU only, which no amendment changes for another."""

    def weights(self) -> dict[str, int]:
        """The actions and how often."""
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}


class Load:
    """So many buyers at once, together at most `rate_per_s` actions a second. `client` may lead through a proxy."""

    def __init__(
        self, client: RecordingClient, seed: int, mix: Mix | None = None, *, buyers: int = 16, rate_per_s: float = 300.0
    ) -> None:
        self.client = client
        self.mix = mix or Mix()
        self.counts: Counter[str] = Counter()
        """`answered`, `lost`, and every status and reason of loss by itself."""
        self.slowest_s: dict[str, float] = {}
        """By how a call ended (a status, a reason of loss): the longest that anybody waited for that."""
        self._pause_s = buyers / rate_per_s
        self._successes: list[float] = []
        self._successes_at: dict[str, list[float]] = {}
        """By partition."""
        self.failures: list[tuple[float, Request, str]] = []
        """When, what was asked for and how it ended: calls that were not decided."""
        self._stopping = asyncio.Event()
        self.leave_by: float | None = None
        """Once it is time to leave: when the last repetitions end (`time.monotonic`)."""
        self._buyers = [_Buyer(self, f"{n}", random.Random(f"{seed}-{n}")) for n in range(buyers)]

    async def stock(self) -> None:
        """Put everything on sale. Raises RuntimeError where the deployment refuses."""
        for sku in SKUS:
            units = HOT_UNITS if sku == HOT else UNITS
            request = {"type": "receipt", "sku": sku, "quantity": units}
            ended = await self.client.retry_until_known("move", request, key=f"stock-{sku}", deadline_s=30)
            if not isinstance(ended, Answered) or ended.status != 201:
                raise RuntimeError(f"{sku} could not be stocked: {ended}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The crowd is there within this block; at its end it finishes what it has begun."""
        tasks = [asyncio.create_task(buyer.shop()) for buyer in self._buyers]
        try:
            yield
        finally:
            self.leave_by = time.monotonic() + LEAVING_S
            self._stopping.set()
            await asyncio.gather(*tasks)

    @property
    def requests(self) -> int:
        """Calls that have ended."""
        return self.counts["answered"] + self.counts["lost"]

    async def first_success(self, after: float, patience_s: float, partition: str | None = None) -> float | None:
        """When the first change behind this instant (`time.monotonic`) was acknowledged (by that partition); None: not
        within patience."""
        until = time.monotonic() + patience_s
        successes = self._successes if partition is None else self._successes_at.setdefault(partition, [])
        while True:
            place = bisect_right(successes, after)
            if place < len(successes):
                return successes[place]
            if time.monotonic() > until:
                return None
            await asyncio.sleep(0.01)

    async def done(self, requests: int) -> None:
        """Wait until so many calls have ended."""
        while self.requests < requests:  # noqa: ASYNC110  # an event for every call would cost the crowd more
            await asyncio.sleep(0.1)

    def note(self, request: Request, ended: Answered | Lost, began: float) -> None:
        """Count how a call ended."""
        now = time.monotonic()
        if isinstance(ended, Answered):
            name = str(ended.status)
            self.counts["answered"] += 1
            if ended.status in (200, 201) and ended.replayed is not None:
                self._successes.append(now)
                self._successes_at.setdefault(ended.body["partition"], []).append(now)
        else:
            name = ended.why
            self.failures.append((began, request, name))
            self.counts["lost"] += 1
        self.counts[name] += 1
        self.slowest_s[name] = max(self.slowest_s.get(name, 0.0), now - began)

    async def pause(self, rng: random.Random) -> bool:
        """Rest as the rate demands; False when it is time to leave."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), rng.expovariate(1 / self._pause_s))
        return not self._stopping.is_set()


@dataclass
class _Buyer:
    load: Load
    name: str
    rng: random.Random
    held: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The lines of its holds."""
    past: list[Call] = field(default_factory=list)
    number: int = 0

    async def shop(self) -> None:
        weights = self.load.mix.weights()
        names = list(weights)
        while await self.load.pause(self.rng):
            action = self.rng.choices(names, list(weights.values()))[0]
            await getattr(self, f"_{action}")()

    # --- what it does --------------------------------------------------------------------------------------------

    async def _hold(self) -> None:
        request: Request = {"lines": self._lines(), "ttl_seconds": LONG_TTL_S}
        if self.rng.random() < 0.15:
            request["ttl_seconds"] = self.rng.choice(SHORT_TTL_S)
        if self.rng.random() < 0.6:
            request["buyer"] = f"buyer-{self.name}-{self.rng.randrange(5)}"
        if self.rng.random() < 0.05:
            request["allow_partial"] = True
        ended = await self._change("hold", request, self._key())
        if isinstance(ended, Answered) and ended.status == 201:
            if len(self.held) >= HELD_MAX:
                del self.held[next(iter(self.held))]
            lines = [{"sku": line["sku"], "quantity": line["quantity"]} for line in ended.body["lines"]]
            self.held[ended.body["id"]] = [line for line in lines if line["quantity"]]

    async def _commit(self) -> None:
        if hold := self._some_hold(forget=True):
            await self._change("commit", {"hold": hold, "reference": f"order-{self.name}-{self.number}"})

    async def _commit_part(self) -> None:
        if hold := self._some_hold():
            line = self.rng.choice(self.held.pop(hold))
            lines = [{**line, "quantity": self.rng.randint(1, line["quantity"])}]
            await self._change("commit", {"hold": hold, "lines": lines})

    async def _release(self) -> None:
        if hold := self._some_hold(forget=True):
            await self._change("release", {"hold": hold, "reason": "changed my mind"})

    async def _extend(self) -> None:
        if hold := self._some_hold():
            await self._change("extend", {"hold": hold, "ttl_seconds": LONG_TTL_S + self.rng.randint(1, 600)})

    async def _amend(self) -> None:
        if hold := self._some_hold():
            lines = self._lines()
            if self.load.mix.alone:
                lines = [{**line, "quantity": self.rng.randint(1, 3)} for line in self.held[hold]]
            ended = await self._change("amend", {"hold": hold, "lines": lines})
            if isinstance(ended, Answered) and ended.status == 200:
                self.held[hold] = [line for line in lines if line["quantity"]]

    async def _replay(self) -> None:
        if self.past:
            await self._call(*self.rng.choice(self.past))

    async def _reuse(self) -> None:
        """The same key, another payload."""
        holds = [(request, key) for verb, request, key in self.past if verb == "hold"]
        if holds:
            request, key = self.rng.choice(holds)
            await self._call("hold", {**request, "buyer": f"thief-{self.name}"}, key)

    async def _receive(self) -> None:
        request = {"type": "receipt", "sku": HOT, "quantity": self.rng.randint(1, 3), "reference": "van"}
        await self._change("move", request, self._key())

    async def _move(self) -> None:
        """What the counters may or may not bear."""
        kind = self.rng.choice(["shipment", "cancel", "damage", "return", "adjustment"])
        request: Request = {"type": kind, "sku": self._sku(), "quantity": 1}
        if kind == "adjustment":
            request |= {"sku": self.rng.choice(SKUS[1:]), "quantity": self.rng.choice([-2, 3]), "reason": "count"}
        if kind in ("damage", "return"):
            request["sku"] = self.rng.choice(SKUS[1:])  # plenty there: no shortfall
        await self._change("move", request, self._key())

    async def _read_stock(self) -> None:
        await self._call("read_stock", {"sku": self._sku()}, None)

    async def _read_hold(self) -> None:
        if hold := self._some_hold():
            await self._call("read_hold", {"hold": hold}, None)

    # --- how it asks ---------------------------------------------------------------------------------------------

    async def _change(self, verb: str, request: Request, key: str | None = None) -> Answered | Lost | None:
        """Ask once, several times at once, or give up and ask again; how it ended, as far as that was heard."""
        if key is None and self.rng.random() < 0.7:
            key = self._key()
        self.past = [*self.past[-100:], (verb, request, key)]
        way = self.rng.random()
        mix = self.load.mix
        if way < mix.at_once:
            copies = self.rng.randint(2, 5)
            ends = await asyncio.gather(*(self._call(verb, request, key) for _ in range(copies)))
            ended = next((end for end in ends if isinstance(end, Answered)), ends[0])
        elif way < mix.at_once + mix.cancelled:
            await self._call_and_leave(verb, request, key)
            if self.rng.random() < 0.2:
                return None
            ended = await self._call(verb, request, key)
        else:
            ended = await self._call(verb, request, key)
        unknown = isinstance(ended, Lost) or ended.status == 429
        if unknown and self.rng.random() >= mix.given_up:
            return await self._persist(verb, request, key)
        return ended

    async def _call(self, verb: str, request: Request, key: str | None) -> Answered | Lost:
        began = time.monotonic()
        ended = await self.load.client.call(verb, request, key=key)
        self.load.note(request, ended, began)
        return ended

    async def _call_and_leave(self, verb: str, request: Request, key: str | None) -> None:
        task = asyncio.create_task(self._call(verb, request, key))
        await asyncio.wait([task], timeout=self.rng.uniform(0, 0.01))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _persist(self, verb: str, request: Request, key: str | None) -> Answered | Lost:
        """Repeat until it is decided, as the contract tells clients to."""
        until = time.monotonic() + self.load.mix.repeat_s
        while True:
            ended = await self._call(verb, request, key)
            late = time.monotonic() > min(until, self.load.leave_by or until)
            if late or (isinstance(ended, Answered) and ended.status != 429):
                return ended
            await asyncio.sleep(self.rng.uniform(0.05, 0.3))

    # --- what it asks for ----------------------------------------------------------------------------------------

    def _key(self) -> str:
        self.number += 1
        return f"{self.name}-{self.number}"

    def _sku(self) -> str:
        return HOT if self.rng.random() < 0.4 else self.rng.choice(SKUS[1:])

    def _lines(self) -> list[dict[str, Any]]:
        alone = self.rng.random() < self.load.mix.alone
        skus = {self._sku() for _ in range(1 if alone else self.rng.randint(1, 3))}
        return [{"sku": sku, "quantity": self.rng.randint(1, 3)} for sku in sorted(skus)]

    def _some_hold(self, *, forget: bool = False) -> str | None:
        if not self.held:
            return None
        hold = self.rng.choice(list(self.held))
        if forget:
            del self.held[hold]
        return hold

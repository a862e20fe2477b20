"""The whole rehearsal: read, plan, look at what is there, play, wait for the ledger, compare."""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from flashhold.domain.model import DEFAULT_POOL
from flashhold.rehearse import plan as planning
from flashhold.rehearse import settle
from flashhold.rehearse.client import Api, ApiUnreachable, Caller, Tally, probe, together
from flashhold.rehearse.expected import expect
from flashhold.rehearse.ledger import Fold
from flashhold.rehearse.player import Player
from flashhold.rehearse.reader import read
from flashhold.rehearse.requests import Requests
from flashhold.rehearse.result import Result, Seconds

CONNECTIONS = 48
"""Requests under way at a time: enough that the API always finds a batch waiting, few enough to stay quick."""

_WATCH_S = 0.2

Watch = Callable[[str, int, int], None]
"""Told five times a second: the stage, and how much is done of how much (0: not known)."""


@dataclass(frozen=True)
class Options:
    """What a rehearsal can be told. `stock_ratio` 1 is stock for everything; `speed_up` None is full speed;
    `run` None is a fresh one, a run's name plays that run again or to its end."""

    stock_ratio: float = 1.0
    connections: int = CONNECTIONS
    speed_up: float | None = None
    limit_rows: int | None = None
    run: str | None = None
    pool: str = DEFAULT_POOL


def rehearse(file: Path, url: str, key: str, options: Options | None = None, watch: Watch | None = None) -> Result:
    """Play `file` through the FlashHold at `url` and reconcile.

    Raises `UnreadableFile`, OSError (the file can't be read), ValueError (an option), `ApiUnreachable`, `KeyRefused`,
    `LedgerUnreadable`.
    """
    options = options or Options()
    show = watch or _nothing
    began = time.monotonic()
    show("Reading the file", 0, 0)
    plan = planning.build(read(file, options.limit_rows), options.stock_ratio)
    api = Api(url, key)
    stages = _Stages(file, plan, api, options, show=show, planned_s=time.monotonic() - began)
    return uvloop.run(stages.run())


def _nothing(_stage: str, _done: int, _total: int) -> None:
    """Nobody is watching."""


class _Stages:
    def __init__(
        self, file: Path, plan: planning.Plan, api: Api, options: Options, *, show: Watch, planned_s: float
    ) -> None:
        self._file = file
        self._plan = plan
        self._api = api
        self._options = options
        self._show = show
        self._run = options.run or fresh_run()
        self._tally = Tally()
        self._seconds = Seconds(planned_s, 0.0, 0.0, 0.0, 0.0)

    async def run(self) -> Result:
        began_at, clock = datetime.now(UTC), _Lap()
        plan, options = self._plan, self._options
        requests = Requests(self._api, self._run, options.pool)
        callers = [Caller(self._api, self._tally) for _ in range(min(8, options.connections))]
        fold = Fold(requests, options.pool, plan.skus)
        await probe(self._api)
        await self._until_ready(callers[0], requests)
        self._show("Looking at what is in stock", 0, 0)
        before = await settle.before_run(callers, requests, plan.skus, fold, self._pages("Reading the ledger", fold))
        expected = expect(plan, before)
        self._seconds.baseline = clock.lap()
        player = Player(plan, requests, self._tally, connections=options.connections, speed_up=options.speed_up)
        finished = asyncio.Event()
        await together([self._play(player, expected.opening, clock, finished), self._watch(player, finished)])
        pages = self._pages("Waiting for the ledger and reading it", fold, sum(player.played.acknowledged.values()))
        stock = await settle.after_run(callers, requests, fold, player.played, pages)
        settled = settle.compare(plan, before, expected, played=player.played, fold=fold, stock=stock)
        for caller in callers:
            caller.close()
        self._seconds.ledger = clock.lap()
        return Result(
            self._file.name, self._api.url, self._run, options.pool, options.connections, options.speed_up, began_at,
            plan, expected, player.played, settled, self._tally, self._seconds,
        )  # fmt: skip

    async def _until_ready(self, caller: Caller, requests: Requests) -> None:
        answer = await caller.call("ready", requests.ready())
        if answer.status != 200:
            raise ApiUnreachable(f"{self._api.url} is not ready: {answer.body[:200].decode(errors='replace')}")

    async def _play(self, player: Player, opening: dict[str, int], clock: "_Lap", finished: asyncio.Event) -> None:
        try:
            await player.open(opening)
            self._seconds.receive = clock.lap()
            await player.play()
            self._seconds.play = clock.lap()
        finally:
            player.close()
            finished.set()

    async def _watch(self, player: Player, finished: asyncio.Event) -> None:
        while not finished.is_set():
            self._show("Playing the orders", player.played.steps_done, self._plan.requests)
            with suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_S):
                    await finished.wait()

    def _pages(self, stage: str, fold: Fold, total: int = 0) -> Callable[[], None]:
        return lambda: self._show(stage, sum(fold.own_kinds.values()), total)


class _Lap:
    def __init__(self) -> None:
        self._since = time.monotonic()

    def lap(self) -> float:
        """Seconds since the lap before."""
        since, self._since = self._since, time.monotonic()
        return self._since - since


def fresh_run() -> str:
    """A name that no run had before."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"

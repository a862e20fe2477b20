"""Engines whose process dies at a step of its choice: before a command is sent, or after it has taken effect."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from flashhold.domain.commands import Command, ReadHold
from flashhold.domain.outcomes import Outcome
from flashhold.engine.carts import Carts
from flashhold.engine.engine import Engine


class Died(BaseException):
    """The process is gone; nothing of it runs on."""


class Fate:
    """`step`: the one at which the process dies, counted from 0 over all of its engines; None: it lives."""

    def __init__(self, step: int | None, *, after: bool = False) -> None:
        self.step = step
        self.after = after
        self.steps = 0

    def is_next(self) -> bool:
        """Whether this step is the last."""
        self.steps += 1
        return self.step is not None and self.steps > self.step


class DyingEngine:
    """An engine as carts use it. `pause`: awaited before each command, for others to get in between."""

    def __init__(self, engine: Engine, fate: Fate, pause: Any = None) -> None:
        self._engine = engine
        self._fate = fate
        self._pause = pause
        self.partition = engine.partition
        self.ttls_ms = engine.ttls_ms

    def submit(self, command: Command) -> Any:
        return asyncio.ensure_future(self._step([command]))

    async def submit_many(self, commands: Sequence[Command]) -> list[Outcome[Any]]:
        return await self._steps(commands)

    async def read_hold(self, hold: str) -> Outcome[Any]:
        return await self.submit(ReadHold(hold))

    async def _step(self, commands: Sequence[Command]) -> Outcome[Any]:
        return (await self._steps(commands))[0]

    async def _steps(self, commands: Sequence[Command]) -> list[Outcome[Any]]:
        if self._pause is not None:
            await self._pause()
        dies = self._fate.is_next()
        if dies and not self._fate.after:
            raise Died
        outcomes = await self._engine.submit_many(commands)
        if dies:
            raise Died
        return outcomes


def dying_carts(engines: Mapping[str, Engine], fate: Fate, pause: Any = None, **options: Any) -> Carts:
    """The carts of a process with this fate."""
    dying: dict[str, Any] = {name: DyingEngine(engine, fate, pause) for name, engine in engines.items()}
    return Carts(dying, **options)

"""What a batch has come to is told to its callers: not before the stores confirm what the level promises."""

import asyncio
import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flashhold.domain.commands import Command
from flashhold.domain.errors import FlashHoldError, NotDurable
from flashhold.domain.outcomes import Outcome
from flashhold.engine.codec import Moment
from flashhold.engine.durability import Durability, in_ledger, on_disk, replicated
from flashhold.engine.link import Link
from flashhold.engine.options import EngineOptions
from flashhold.engine.runs import levels_asked


class Request(NamedTuple):
    """Commands that belong together and the future of their outcomes; `single`: of the one outcome."""

    commands: Sequence[Command]
    future: "asyncio.Future[Any]"
    single: bool
    weight: int
    """What bounds the time of a script: see `batcher.weight_of`."""
    given_up_at: float
    """When the loop's clock passes this, its caller is told that there is no answer."""


class Answered(NamedTuple):
    """A request and what its commands have come to; None: not decided yet."""

    request: Request
    outcomes: list[Outcome[Any] | None]


class Confirming:
    """Tells outcomes at once where their level is met, else when it is. `ask_again`: for a request that the script has
    not decided; `on_idle`: nothing is left to be confirmed."""

    def __init__(
        self, link: Link, options: EngineOptions, ask_again: Callable[[Request], None], on_idle: Callable[[], None]
    ) -> None:
        self._link = link
        self._options = options
        self._ask_again = ask_again
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    def settle(self, requests: Sequence[Request], outcomes: list[Outcome[Any] | None], moment: Moment) -> None:
        """Tell each request its share of the outcomes of a batch."""
        raised: Any = moment.raised
        by_level: dict[Durability, list[Answered]] = {}
        at = 0
        for request in requests:
            count = len(request.commands)
            mine = outcomes[at : at + count] if count < len(outcomes) else outcomes
            at += count
            level = self._options.durability if not raised else self._level_of(mine, raised)
            by_level.setdefault(level, []).append(Answered(request, mine))
        for level, answered in by_level.items():
            if self._is_met(level):
                self._link.shown(moment.epoch, moment.seq)
                self._tell(answered)
            else:
                self._confirm(level, answered, moment)

    def _level_of(self, outcomes: Sequence[Outcome[Any] | None], raised: dict[str, str]) -> Durability:
        """The deployment's level, or a higher one that the policy of an outcome's SKU asks for."""
        levels = [Durability(level) for outcome in outcomes for level in levels_asked(outcome, raised)]
        return max([self._options.durability, *levels], key=lambda level: level.rank)

    def _is_met(self, level: Durability) -> bool:
        """Whether the reply has come no earlier than the level allows: the rest has to be confirmed."""
        if level == Durability.DISK:
            return self._link.fsyncs
        return level == Durability.MEMORY or (level == Durability.REPLICA == self._options.durability)

    def _confirm(self, level: Durability, answered: list[Answered], moment: Moment) -> None:
        """Tells the outcomes once the stores have confirmed all that the partition had decided by then: a replay waits
        as the first answer did."""
        until = max(one.request.given_up_at for one in answered)

        async def confirm() -> None:
            try:
                async with asyncio.timeout_at(until):
                    await self._confirmed(level, moment)
            except TimeoutError:
                fail([one.request for one in answered], NotDurable("the stores have not confirmed the write in time"))
            except FlashHoldError as error:
                fail([one.request for one in answered], error)
            except Exception as error:
                fail([one.request for one in answered], error)
                raise
            else:
                self._link.shown(moment.epoch, moment.seq)
                self._tell(answered)
            finally:
                self._tasks.discard(task)
                self._on_idle()

        task = self._loop.create_task(confirm())
        self._tasks.add(task)

    async def confirmed(self, level: Durability, epoch: int, seq: int) -> None:
        """The same for what was told at a lower level. Raises NotDurable."""
        try:
            async with asyncio.timeout(self._options.reply_timeout_ms / 1000):
                await self._confirmed(level, Moment(self._options.partition, 0, epoch, seq, ""))
        except TimeoutError:
            raise NotDurable("the stores have not confirmed the write in time") from None

    async def _confirmed(self, level: Durability, moment: Moment) -> None:
        if level in (Durability.DISK, Durability.REPLICA) and not self._link.fsyncs:
            on_disk(await self._link.wait_for_disk())
        if level == Durability.REPLICA:
            replicated(await self._link.wait_for_replica())
        if level == Durability.LEDGER:
            await in_ledger(self._options.ledger_gate, moment.partition, moment.epoch, moment.seq)

    def _tell(self, answered: list[Answered]) -> None:
        for request, mine in answered:
            if request.future.done():
                continue
            if None in mine:
                self._settle_partly(request, mine)
            else:
                request.future.set_result(mine[0] if request.single else mine)

    def _settle_partly(self, request: Request, outcomes: list[Outcome[Any] | None]) -> None:
        """Only what is undecided is asked again: the others' answers are first answers, not replays."""
        if request.single:
            self._ask_again(request)
            return
        left = [i for i, outcome in enumerate(outcomes) if outcome is None]

        def complete(rest: "asyncio.Future[list[Any]]") -> None:
            if request.future.done():
                return
            if error := rest.exception():
                request.future.set_exception(error)
                return
            for i, outcome in zip(left, rest.result(), strict=True):
                outcomes[i] = outcome
            request.future.set_result(outcomes)

        rest: asyncio.Future[list[Any]] = self._loop.create_future()
        rest.add_done_callback(complete)
        self._ask_again(request._replace(commands=[request.commands[i] for i in left], future=rest))


def fail(requests: Sequence[Request], error: Exception) -> None:
    """To each an error of his own: every caller that raises one hangs its frames on it."""
    for request in requests:
        if not request.future.done():
            request.future.set_exception(copy.copy(error) if isinstance(error, FlashHoldError) else error)

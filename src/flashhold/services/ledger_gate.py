"""Level `ledger`: an acknowledgement waits until Postgres has what it acknowledges.

One question at a time for all who wait, asked again as soon as it is answered while anybody does: the wait is that of
the write-behind, and the ledger is asked once, however many requests are under way.
"""

import asyncio
import heapq
import itertools

from flashhold.domain.errors import LedgerUnavailable, NotDurable
from flashhold.ledger.reader import Reader

PAUSE_S = 0.002
"""Between questions: a fraction of the fsync that the ledger's own transaction waits for."""


class LedgerWatch:
    """Who waits for which place of the ledger, of all partitions of one process."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._waiting: dict[str, list[tuple[int, int, int, asyncio.Future[None]]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._tickets = itertools.count()

    async def reached(self, partition: str, epoch: int, seq: int) -> None:
        """Returns once the ledger has this entry. Raises NotDurable where the ledger cannot be asked."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(partition, [])
        heapq.heappush(waiting, (epoch, seq, next(self._tickets), future))
        task = self._tasks.get(partition)
        if task is None or task.done():
            self._tasks[partition] = asyncio.create_task(self._watch(partition, waiting))
        await future

    async def _watch(self, partition: str, waiting: list[tuple[int, int, int, asyncio.Future[None]]]) -> None:
        while waiting:
            try:
                place = await self._reader.place(partition)
            except LedgerUnavailable as error:
                self._fail(waiting, NotDurable(f"the ledger cannot confirm the write: {error}"))
                return
            while waiting and place is not None and waiting[0][:2] <= (place.epoch, place.seq):
                _settle(heapq.heappop(waiting)[3])
            while waiting and waiting[0][3].done():
                heapq.heappop(waiting)  # whoever asked has given up
            await asyncio.sleep(PAUSE_S)

    @staticmethod
    def _fail(waiting: list[tuple[int, int, int, asyncio.Future[None]]], error: NotDurable) -> None:
        for *_, future in waiting:
            if not future.done():
                future.set_exception(NotDurable(str(error)))
        waiting.clear()


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)

"""Who is let in when more come than can be served, by the queue alone."""

import asyncio

from flashhold.http import turnstile
from flashhold.http.turnstile import Turnstile

ROOM = 20


class Queue:
    """A queue whose length the test says, before a turnstile that watches it."""

    def __init__(self) -> None:
        self.waiting = self.answered = 0
        self.turnstile = Turnstile(
            asyncio.get_running_loop(), waiting=lambda: self.waiting, answered=lambda: self.answered, room=ROOM
        )
        self.turnstile.watch(lambda: True)

    async def for_a_while(self, waiting: int, seconds: float, per_second: int = 0) -> None:
        """So many wait for so long, while so many a second are answered."""
        self.waiting = waiting
        for _ in range(round(seconds / 0.01)):
            self.answered += per_second // 100
            await asyncio.sleep(0.01)


async def test_a_burst_is_let_in() -> None:
    """Ten times the room for a moment is what a queue is for; when it is short again nothing is remembered."""
    queue = Queue()
    for _ in range(5):
        await queue.for_a_while(10 * ROOM, turnstile.PATIENCE_SECONDS / 2)
        assert not queue.turnstile.full()
        await queue.for_a_while(0, 0.05)
    assert not queue.turnstile.crowded


async def test_a_queue_that_stays_lets_nobody_in() -> None:
    """Then only as many may wait as are served in a tenth of a second; when it is short again all may."""
    queue = Queue()
    await queue.for_a_while(1_000, 0.6, per_second=4_000)
    assert queue.turnstile.full()
    queue.waiting = 150  # 4,000 a second: 400 may wait, about
    assert queue.turnstile.crowded and not queue.turnstile.full()
    await queue.for_a_while(0, 0.05)
    assert queue.turnstile.crowded
    await queue.for_a_while(0, 0.15)
    assert not queue.turnstile.crowded


async def test_the_next_batches_may_always_wait() -> None:
    """However slow the store is, what fits the room is let in."""
    queue = Queue()
    await queue.for_a_while(ROOM + 1, 0.6)
    assert queue.turnstile.full()
    queue.waiting = ROOM - 1
    assert not queue.turnstile.full()


async def test_refusals_are_held_back_and_in_order() -> None:
    """Whoever is turned away learns it after a moment, after those that were before him, and well within the time."""
    queue = Queue()
    loop = asyncio.get_running_loop()
    told: list[tuple[int, float]] = []
    for number in range(40):
        at = loop.time()
        queue.turnstile.turn_away(lambda number=number, at=at: told.append((number, loop.time() - at)))  # type: ignore[misc]
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.15)
    assert [number for number, _ in told] == list(range(40))
    waits = sorted(seconds for _, seconds in told)
    assert waits[0] >= turnstile.HELD_BACK_SECONDS - 0.006
    assert waits[20] < 0.1

"""Who is let in when more come than can be served: one for each HTTP process.

A crowd that arrives within a moment is let in and waits: that is what a queue is for. A queue that *stays* serves
nobody sooner, it only makes everyone late. So once commands have been waiting for a while without the queue ever
getting short, no more holds are let in than a tenth of a second's work; the others are told so before anything of them
is parsed. What goes on with a sale that has begun (commits, releases, movements) and reads are let in until
`waiting_max`.

A refusal costs a fifth of a hold. Whoever is refused and asks again at once could so take the whole process away from
those who are served, and with some thousand connections did: the loop went round from refusal to refusal, and Redis'
replies were read so rarely that they came too late. Therefore refusals are held back for a moment: a connection has
only one request under way, so it asks a bounded number of times a second. Where even that is too much for the process,
refusals come later, rather than at the cost of those who are served.
"""

import asyncio
from collections import deque
from collections.abc import Callable

WAIT_SECONDS = 0.1
"""What may wait once it is crowded, in time at the present pace."""
PATIENCE_SECONDS = 0.1
"""How long a queue may stand before it is a crowd: a batch that waits for a slow fsync is none."""
HELD_BACK_SECONDS = 0.05
"""Half of what is promised for a refusal, so that the rest is left for the way to the client."""
REFUSED_FOR_SERVED = 0.75
"""Refusals for each request that is served, while the process has no time to spare: about a seventh of its time."""
REFUSED_PER_SECOND_MIN = 4_000
"""However few are served, because the store is slow: these cost a twentieth of the process's time."""
BUSY_LATE_SECONDS = 0.005
"""A loop that comes to its timers so much too late has no time to spare."""
_LOOK_SECONDS = 0.02
_TELL_SECONDS = 0.01
_PACE_SECONDS = 0.2


class Turnstile:
    """`waiting`: commands that no batch has taken; `answered`: requests that were, so far; both are asked often.

    `room`: commands that may always wait, so that the next batches are full.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, waiting: Callable[[], int], answered: Callable[[], int], room: int
    ) -> None:
        self.crowded = False
        self.leaving = False
        """Whether the server ends: a connection that was accepted in the last moment must know."""
        self._loop = loop
        self._waiting = waiting
        self._answered = answered
        self._room = self._limit = room
        self._standing_since: float | None = None
        self._short_since: float | None = None
        self._paced_at, self._paced = loop.time(), answered()
        self._pace = 0.0
        self._busy_until = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._held_back: deque[tuple[float, Callable[[], None]]] = deque()
        self._refused = 0

    def watch(self, still: Callable[[], bool]) -> None:
        """Look at the queue fifty times a second while `still` says that there is a reason to."""
        if self._watch is None:
            self._look_later(still)

    def full(self) -> bool:
        """Whether another hold must be turned away. Cheap only to ask where it is `crowded`, as it rarely is."""
        return self.crowded and self._waiting() >= self._limit

    def turn_away(self, refuse: Callable[[], None]) -> None:
        """Have a request refused in a moment, behind those that were turned away before it."""
        if not self._held_back:
            self._loop.call_later(HELD_BACK_SECONDS, self._tell)
        self._held_back.append((self._loop.time() + HELD_BACK_SECONDS, refuse))

    def _tell(self) -> None:
        now = self._loop.time()
        left = len(self._held_back)
        if now < self._busy_until:
            left = min(left, int(max(self._pace * REFUSED_FOR_SERVED, REFUSED_PER_SECOND_MIN) * _TELL_SECONDS))
        while left and self._held_back[0][0] <= now + _TELL_SECONDS / 2:
            left -= 1
            self._refused += 1
            self._held_back.popleft()[1]()
        if self._held_back:
            self._loop.call_at(max(now + _TELL_SECONDS, self._held_back[0][0]), self._tell)

    def _look_later(self, still: Callable[[], bool]) -> None:
        at = self._loop.time() + _LOOK_SECONDS
        self._watch = self._loop.call_at(at, self._look, at, still)

    def _look(self, due: float, still: Callable[[], bool]) -> None:
        now, waiting = self._loop.time(), self._waiting()
        if now - due > BUSY_LATE_SECONDS:
            self._busy_until = now + _PACE_SECONDS
        if now - self._paced_at >= _PACE_SECONDS:
            served = self._answered() - self._refused
            self._pace = (served - self._paced) / (now - self._paced_at)
            self._paced_at, self._paced = now, served
            self._limit = max(self._room, int(self._pace * WAIT_SECONDS))
        if waiting >= self._room // 4:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        if self._short_since is not None:
            # A crowd that was kept from asking for a moment is still one.
            self._standing_since = None
            self.crowded = self.crowded and now - self._short_since < PATIENCE_SECONDS
        elif waiting > self._room and self._standing_since is None:
            self._standing_since = now
        elif self._standing_since is not None and now - self._standing_since >= PATIENCE_SECONDS:
            self.crowded = True
        self._watch = None
        if still():
            self._look_later(still)

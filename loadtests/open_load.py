"""A crowd that does not wait its turn: holds at a fixed rate over a bounded number of connections, one on each at once.

It runs in a process of its own, like `http_load.py`, whose requests it sends:

    python -m loadtests.open_load --url http://127.0.0.1:8000 --sku HOT --token … --per-second 20000 --seconds 3

and prints one JSON object. An arrival that finds every connection taken goes away and is counted as turned away by the
crowd's own door, never silently dropped. The latency of an answer counts from when its request was due, so a client
that falls behind makes the server look worse, not better.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter, deque
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import uvloop

from loadtests.http_load import Requests
from loadtests.tally import percentile

WARM_UP_SECONDS = 1.0
_TICK_SECONDS = 0.001
_LEAVING_SECONDS = 10.0


class Crowded(NamedTuple):
    """What came back while the clock ran. `offered`: arrivals; `turned_away`: those that found no free connection."""

    seconds: float
    offered: int
    turned_away: int
    statuses: dict[int, int]
    p99_ms: dict[int, float]
    slowest_ms: dict[int, float]
    lost: int
    """Connections that ended with a request on them."""
    example: str
    """The body of one answer that was no 201."""

    def per_second(self, status: int) -> float:
        return self.statuses.get(status, 0) / self.seconds


class _Crowd:
    """What all connections share."""

    def __init__(self, requests: Requests, begins: float, ends: float) -> None:
        self.requests = requests
        self.begins = begins
        self.ends = ends
        self.idle: deque[_Connection] = deque()
        self.waits: dict[int, list[float]] = {}
        self.counts: Counter[str] = Counter()
        self.example = b""

    def answered(self, status: int, due: float, answer: bytes) -> None:
        now = time.perf_counter()
        if self.begins <= now < self.ends:
            self.waits.setdefault(status, []).append(now - due)
            if status != 201 and not self.example:
                self.example = answer

    async def come(self, per_second: float) -> None:
        """Arrivals at that rate until the end."""
        began = time.perf_counter()
        sent = 0
        while (now := time.perf_counter()) < self.ends:
            due = int((now - began) * per_second)
            # Arrivals of a tick count from that tick; it is a millisecond, or as long as this process was kept away.
            for _ in range(due - sent):
                at = began + sent / per_second
                sent += 1
                if self.begins <= at < self.ends:
                    self.counts["offered"] += 1
                if self.idle:
                    self.idle.popleft().ask(at)
                elif self.begins <= at < self.ends:
                    self.counts["turned_away"] += 1
            await asyncio.sleep(_TICK_SECONDS)


class _Connection(asyncio.Protocol):
    """Kept alive; asks when it is told to, and says when it is idle again."""

    def __init__(self, crowd: _Crowd) -> None:
        self._crowd = crowd
        self._buffer = b""
        self._due: float | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._crowd.idle.append(self)

    def ask(self, due: float) -> None:
        self._due = due
        self._transport.write(self._crowd.requests.next())

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        head_ends = buffer.find(b"\r\n\r\n")
        at = buffer.find(b"content-length: ", 0, head_ends)
        if head_ends < 0 or len(buffer) < head_ends + 4 + int(buffer[at + 16 : buffer.find(b"\r\n", at)]):
            self._buffer = buffer
            return
        self._buffer = b""
        if self._due is not None:
            self._crowd.answered(int(buffer[9:12]), self._due, buffer[head_ends + 4 :])
            self._due = None
            self._crowd.idle.append(self)

    def connection_lost(self, _: Exception | None) -> None:
        if self._due is not None:
            self._crowd.counts["lost"] += 1
            self._due = None
        elif self in self._crowd.idle:
            self._crowd.idle.remove(self)


async def measure(
    url: str, token: str, sku: str, *, per_second: float, connections: int, seconds: float,
    warm_up: float = WARM_UP_SECONDS,
) -> Crowded:  # fmt: skip
    """Arrivals for `warm_up` + `seconds`; those of the latter count, and the answers that come in it. Whoever has none
    ten seconds later is lost."""
    place = urlsplit(url)
    host, port = place.hostname or "127.0.0.1", place.port or 80
    loop = asyncio.get_running_loop()
    crowd = _Crowd(Requests(f"{host}:{port}", token, sku), float("inf"), float("inf"))
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(crowd), host, port)
    crowd.begins = time.perf_counter() + warm_up
    crowd.ends = crowd.begins + seconds
    await crowd.come(per_second)
    until = time.perf_counter() + _LEAVING_SECONDS
    while len(crowd.idle) + crowd.counts["lost"] < connections and time.perf_counter() < until:  # noqa: ASYNC110  # at the end only
        await asyncio.sleep(0.05)
    unanswered = connections - len(crowd.idle)
    return Crowded(
        seconds,
        crowd.counts["offered"],
        crowd.counts["turned_away"],
        {status: len(waits) for status, waits in crowd.waits.items()},
        {status: percentile(waits, 0.99) * 1e3 for status, waits in crowd.waits.items()},
        {status: max(waits) * 1e3 for status, waits in crowd.waits.items()},
        max(crowd.counts["lost"], unanswered),
        crowd.example.decode(errors="replace"),
    )


async def run_apart(
    url: str, token: str, sku: str, *, per_second: float, connections: int, seconds: float, core: int | None
) -> Crowded:
    """`measure` in a process of its own, on `core` if given. Raises RuntimeError with what it said if it fails."""
    words = ["--url", url, "--token", token, "--sku", sku, "--per-second", per_second]
    words += ["--connections", connections, "--seconds", seconds]
    if core is not None:
        words += ["--core", core]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtests.open_load", *map(str, words),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, complaint = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"The crowd failed:\n{complaint.decode()[-2000:]}")
    facts: dict[str, Any] = json.loads(told)
    for name in ("statuses", "p99_ms", "slowest_ms"):
        facts[name] = {int(status): value for status, value in facts[name].items()}
    return Crowded(**facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", default="none")
    parser.add_argument("--sku", default="HOT")
    parser.add_argument("--per-second", type=float, default=1_000.0)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--core", type=int, help="stay on this core")
    options = parser.parse_args()
    if options.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.core})
    measured = uvloop.run(
        measure(
            options.url, options.token, options.sku,
            per_second=options.per_second, connections=options.connections, seconds=options.seconds,
        )
    )  # fmt: skip
    print(json.dumps(measured._asdict()))


if __name__ == "__main__":
    main()

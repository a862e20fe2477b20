"""An HTTP/1.1 client that costs little: prepared requests over kept-alive connections, one in flight on each.

It runs in a process of its own, so that the server under test and the driver don't share an interpreter:

    python -m loadtests.http_load --url http://127.0.0.1:8000 --sku HOT --token … --seconds 3

and prints one JSON object. Each request is a `POST /v1/holds` with a key of its own; the status of every answer is
counted, and only answers inside the measured time are.
"""

import argparse
import asyncio
import json
import os
import sys
import time
import uuid
from collections import Counter
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import uvloop

from loadtests.tally import percentile

WARM_UP_SECONDS = 0.5


class Measured(NamedTuple):
    """What came back while the clock ran."""

    seconds: float
    statuses: dict[int, int]
    p50_ms: float
    p99_ms: float
    example: str
    """The body of one answer, so that a reader can see what was measured."""

    def per_second(self, status: int) -> float:
        return self.statuses.get(status, 0) / self.seconds


class Requests:
    """Holds of one unit with keys nobody used before; everything but the key's number is prepared."""

    def __init__(self, host: str, token: str, sku: str) -> None:
        body = json.dumps({"lines": [{"sku": sku, "quantity": 1}], "buyer": "buyer-1", "ttl_seconds": 600}).encode()
        self._head = (
            f"POST /v1/holds HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Idempotency-Key: {uuid.uuid4()}-"
        ).encode()
        self._tail = b"\r\n\r\n" + body
        self._number = 0

    def next(self) -> bytes:
        self._number += 1
        return b"%b%d%b" % (self._head, self._number, self._tail)


class _Run:
    """What all connections share: the clock's window, the counts."""

    def __init__(self, requests: Requests, begins: float, ends: float) -> None:
        self.requests = requests
        self.begins = begins
        self.ends = ends
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.example = b""


class _Connection(asyncio.Protocol):
    """Sends a request, waits for the whole answer, sends the next. Any surprise ends the run with an error."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class is one without saying so
        self._send()

    def _send(self) -> None:
        self._transport.write(self._run.requests.next())
        self._sent = time.perf_counter()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        head_ends = buffer.find(b"\r\n\r\n")
        try:
            incomplete = head_ends < 0 or len(buffer) < head_ends + 4 + _content_length(buffer[:head_ends])
        except ValueError as error:
            self.done.set_exception(error)
            self._transport.close()
            return
        if incomplete:
            self._buffer = buffer
            return
        self._buffer = b""
        now = time.perf_counter()
        run = self._run
        if run.begins <= now < run.ends:
            run.statuses[int(buffer[9:12])] += 1
            run.latencies.append(now - self._sent)
            if not run.example:
                run.example = buffer[head_ends + 4 :]
        if now < run.ends:
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"The server closed a connection in the middle: {error}"))


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"content-length:")
    if at < 0:
        raise ValueError(f"An answer without Content-Length: {head!r}")
    end = lowered.find(b"\r\n", at)
    return int(head[at + 15 : end if end >= 0 else len(head)])


async def measure(
    url: str, token: str, sku: str, *, connections: int, seconds: float, warm_up: float = WARM_UP_SECONDS
) -> Measured:
    """Keep `connections` requests in flight for `warm_up` + `seconds`; count those answered in the latter."""
    place = urlsplit(url)
    host, port = place.hostname or "127.0.0.1", place.port or 80
    begins = time.perf_counter() + warm_up
    run = _Run(Requests(f"{host}:{port}", token, sku), begins, begins + seconds)
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: _Connection(run), host, port) for _ in range(connections)]
    await asyncio.wait_for(asyncio.gather(*(protocol.done for _, protocol in opened)), warm_up + seconds + 30)
    return Measured(
        seconds,
        dict(run.statuses),
        percentile(run.latencies, 0.50) * 1e3,
        percentile(run.latencies, 0.99) * 1e3,
        run.example.decode(errors="replace"),
    )


async def run_apart(url: str, token: str, sku: str, *, connections: int, seconds: float, core: int | None) -> Measured:
    """`measure` in a process of its own, on `core` if given. Raises RuntimeError with what it said if it fails."""
    words = ["--url", url, "--token", token, "--sku", sku, "--connections", connections, "--seconds", seconds]
    if core is not None:
        words += ["--core", core]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "loadtests.http_load",
        *map(str, words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, complaint = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"The HTTP client failed:\n{complaint.decode()[-2000:]}")
    facts: dict[str, Any] = json.loads(told)
    facts["statuses"] = {int(status): count for status, count in facts["statuses"].items()}
    return Measured(**facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", default="none")
    parser.add_argument("--sku", default="HOT")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--core", type=int, help="stay on this core")
    options = parser.parse_args()
    if options.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.core})
    measured = uvloop.run(
        measure(options.url, options.token, options.sku, connections=options.connections, seconds=options.seconds)
    )
    print(json.dumps(measured._asdict()))


if __name__ == "__main__":
    main()

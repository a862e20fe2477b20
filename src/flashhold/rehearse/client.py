"""A small HTTP/1.1 client for one purpose: very many small requests, each repeated with its key until it is decided.

A general client costs several times the server's work for a request; the machine under rehearsal often is this one.
"""

import asyncio
import random
import ssl
import time
from array import array
from collections import Counter
from collections.abc import Coroutine, Iterable
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

REPLY_TIMEOUT_S = 15.0
"""Longer than the API's own patience with its stores, so that its 503 arrives before we give up on the connection."""

GIVE_UP_AFTER_S = 60.0
"""How long one request is repeated before the API counts as unreachable: a supervised restart fits into it."""

_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.05, 2.0
_UNDECIDED = frozenset({429, 502, 503, 504})


class ApiUnreachable(Exception):
    """The API can't be reached, or has not decided a request for a minute."""


class KeyRefused(Exception):
    """The API does not accept the key, or the key lacks a scope that a rehearsal needs."""


class Answer(NamedTuple):
    """A decided answer."""

    status: int
    body: bytes


class Tally:
    """What went over the wire: latencies in seconds for each verb, decided answers for each second, repeats."""

    def __init__(self) -> None:
        self.latencies_s: dict[str, array[float]] = {}
        self.by_second: dict[str, Counter[int]] = {}
        self.repeats: Counter[str] = Counter()
        self.decided = 0
        self.started = time.monotonic()

    def note(self, verb: str, began: float, ended: float) -> None:
        if verb not in self.latencies_s:
            self.latencies_s[verb] = array("d")
            self.by_second[verb] = Counter()
        self.latencies_s[verb].append(ended - began)
        self.by_second[verb][int(ended - self.started)] += 1
        self.decided += 1


class Api:
    """Where the API is and what every request to it carries."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url if "//" in url else f"//{url}", scheme="http")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http or https address")
        if not key.isascii() or not key.isprintable():
            raise ValueError("the API key has characters that no key has")
        self.url = url
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._prefix = parts.path.rstrip("/").encode()
        self._headers = (
            f" HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\nauthorization: Bearer {key}\r\n"
            "user-agent: flashhold-rehearse\r\n"
        ).encode()

    def post(self, path: str, body: bytes, key: str) -> bytes:
        """A POST's bytes. `path` is already percent-encoded; `key` is its idempotency key."""
        head = b"content-type: application/json\r\nidempotency-key: %b\r\ncontent-length: %d\r\n\r\n"
        return b"".join((b"POST ", self._prefix, path.encode(), self._headers, head % (key.encode(), len(body)), body))

    def get(self, path: str) -> bytes:
        return b"".join((b"GET ", self._prefix, path.encode(), self._headers, b"\r\n"))


class Caller:
    """One connection, one request at a time; connects when needed and again after every loss."""

    def __init__(self, api: Api, tally: Tally) -> None:
        self._api = api
        self._tally = tally
        self._wire: _Wire | None = None

    async def call(self, verb: str, request: bytes) -> Answer:
        """Send until decided. Raises `ApiUnreachable`, `KeyRefused`. Safe to repeat: reads, or keyed by the caller."""
        began = time.monotonic()
        backoff_s = _BACKOFF_FIRST_S
        while True:
            answer = await self._try(verb, request)
            ended = time.monotonic()
            if isinstance(answer, Answer):
                if answer.status in (401, 403):
                    raise KeyRefused(f"the API answered {answer.status} to {verb}")
                if answer.status not in _UNDECIDED:
                    self._tally.note(verb, began, ended)
                    return answer
                cause = f"it answers {answer.status}"
            else:
                cause = answer
            self._tally.repeats[cause] += 1
            if ended - began > GIVE_UP_AFTER_S:
                raise ApiUnreachable(f"{self._api.url} has not decided a {verb} for {GIVE_UP_AFTER_S:.0f} s: {cause}")
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)

    async def _try(self, verb: str, request: bytes) -> Answer | str:
        """The answer, or the words for why there is none."""
        try:
            if self._wire is None or self._wire.closed:
                self._wire = await _connect(self._api)
            return await self._wire.exchange(request)
        except TimeoutError:
            self.close()
            return "no answer in time"
        except OSError as error:
            self.close()
            return f"connection lost ({type(error).__name__})"

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


async def together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; the first failure stops the others and is raised itself, not as a group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for coroutine in coroutines:
                tasks.create_task(coroutine)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def probe(api: Api) -> None:
    """One attempt to connect; raises `ApiUnreachable` at once, where `call` would go on trying."""
    try:
        (await _connect(api)).close()
    except OSError as error:
        raise ApiUnreachable(f"{api.url}: {error or type(error).__name__}") from error


async def _connect(api: Api) -> "_Wire":
    async with asyncio.timeout(REPLY_TIMEOUT_S):
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(_Wire, api.host, api.port, ssl=api.tls)
        return wire


class _Wire(asyncio.Protocol):
    """A keep-alive connection on which one exchange happens at a time."""

    def __init__(self) -> None:
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []

    async def exchange(self, request: bytes) -> Answer:
        """Raises TimeoutError, or ConnectionError when the connection ends first."""
        if self._transport is None or self.closed:
            raise ConnectionResetError
        waiting = self._waiting = self._loop.create_future()
        timer = self._loop.call_later(REPLY_TIMEOUT_S, self._late, waiting)
        self._transport.write(request)
        try:
            answer: Answer = await waiting
            return answer
        finally:
            timer.cancel()

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    @staticmethod
    def _late(waiting: "asyncio.Future[Answer]") -> None:
        if not waiting.done():
            waiting.set_exception(TimeoutError())

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport without being instances of it.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(ConnectionError(f"not HTTP: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._end(ConnectionResetError())

    def _end(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    # the parser's side

    def on_message_begin(self) -> None:
        self._body.clear()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        answer = Answer(self._parser.get_status_code(), b"".join(self._body))
        if not self._parser.should_keep_alive():
            self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

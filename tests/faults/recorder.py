"""A client that writes down what it asks for and what it is told, so that nothing depends on its memory.

Its own small HTTP/1.1 connection (one exchange at a time on each, as many as there are calls at once): a run makes 10⁵
calls on a machine that it shares with the system under test, and a call that was given up must never take the next
one's answer: its connection is thrown away.
"""

import asyncio
import random
import time
from collections import Counter
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

import httptools
import msgspec

from tests.faults.history import Answered, HistoryWriter, Lost

REPLY_TIMEOUT_S = 5.0
_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.02, 0.5
_encode = msgspec.json.encode


class RecordingClient:
    """Calls the API at `base_url` under one name, `worker`. Any number of calls may be under way at once.

    Every call gives what it recorded: `Answered`, or `Lost` where the fate is unknown (no reply within `timeout_s`, a
    connection refused or reset, a 5xx with its code, a cancellation, which is recorded and then raised).
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        history: HistoryWriter,
        *,
        worker: str = "client",
        timeout_s: float = REPLY_TIMEOUT_S,
    ) -> None:
        parts = urlsplit(base_url)
        self.history = history
        self.worker = worker
        self.timeout_s = timeout_s
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._head = f" HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer {api_key}\r\n".encode()
        self._idle: list[_Wire] = []
        self.said: Counter[str] = Counter()
        """What 5xx answers said in words."""

    async def __aenter__(self) -> "RecordingClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that nobody waits on."""
        while self._idle:
            self._idle.pop().close()

    async def call(self, verb: str, request: dict[str, Any], *, key: str | None = None) -> Answered | Lost:
        """One attempt. `request` as `Invoked` has it."""
        wire_bytes = self._bytes(verb, request, key)
        id = self.history.invoked(verb, request, key=key, worker=self.worker)
        wire: _Wire | None = None
        try:
            async with asyncio.timeout(self.timeout_s):
                wire = await self._connected()
                status, replayed, body = await wire.exchange(wire_bytes)
        except TimeoutError:
            return self._give_up(id, wire, "no answer in time")
        except OSError as error:
            return self._give_up(id, wire, f"connection lost: {type(error).__name__}")
        except BaseException as error:
            self._give_up(id, wire, f"given up: {type(error).__name__}")
            raise
        if wire.closed:
            wire.close()
        else:
            self._idle.append(wire)
        try:
            document = msgspec.json.decode(body) if body else {}
        except msgspec.DecodeError:
            return self.history.lost(id, f"{status} with what is not JSON")
        if status >= 500:
            code = document.get("code") if isinstance(document, dict) else None
            self.said[str(document.get("detail") if isinstance(document, dict) else document)] += 1
            return self.history.lost(id, f"{status} {code}")
        return self.history.answered(id, status, replayed, document)

    async def retry_until_known(
        self, verb: str, request: dict[str, Any], *, key: str | None, deadline_s: float
    ) -> Answered | Lost:
        """Repeat with the same key until it is decided (a 429 is not) or `deadline_s` seconds have passed; the last of
        the ends, each of which is in the history."""
        until = time.monotonic() + deadline_s
        backoff_s = _BACKOFF_FIRST_S
        while True:
            ended = await self.call(verb, request, key=key)
            if isinstance(ended, Answered) and ended.status != 429:
                return ended
            pause_s = backoff_s * random.uniform(0.5, 1.0)
            if time.monotonic() + pause_s >= until:
                return ended
            await asyncio.sleep(pause_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)

    def _give_up(self, id: int, wire: "_Wire | None", why: str) -> Lost:
        if wire is not None:
            wire.close()
        return self.history.lost(id, why)

    async def _connected(self) -> "_Wire":
        while self._idle:
            wire = self._idle.pop()
            if not wire.closed:
                return wire
        _, wire = await asyncio.get_running_loop().create_connection(_Wire, *self._address)
        return wire

    def _bytes(self, verb: str, request: dict[str, Any], key: str | None) -> bytes:
        method, path, body = _http(verb, request)
        head = [method.encode(), b" ", path.encode(), self._head]
        if key is not None:
            head.append(f"idempotency-key: {key}\r\n".encode())
        if method == "GET":
            return b"".join([*head, b"\r\n"])
        content = _encode(body)
        head.append(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content))
        return b"".join([*head, content])


def _http(verb: str, request: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Method, path and body of a call."""
    match verb:
        case "hold":
            return "POST", "/v1/holds", request
        case "move":
            return "POST", "/v1/movements", request
        case "read_hold":
            return "GET", f"/v1/holds/{quote(request['hold'], safe='')}", {}
        case "read_stock":
            query = urlencode({"pool": request["pool"]}) if request.get("pool") else ""
            return "GET", f"/v1/skus/{quote(request['sku'], safe='')}?{query}", {}
        case "commit" | "release" | "extend" | "amend":
            body = {name: value for name, value in request.items() if name != "hold"}
            return "POST", f"/v1/holds/{quote(request['hold'], safe='')}/{verb}", body
        case _:
            raise ValueError(f"{verb} is no verb of a history")


Reply = tuple[int, bool | None, bytes]


class _Wire(asyncio.Protocol):
    """A kept-alive connection with one exchange at a time."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Reply] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._replayed: bool | None = None

    async def exchange(self, request: bytes) -> Reply:
        """Raises ConnectionError when the connection ends first."""
        if self._transport is None or self.closed:
            raise ConnectionResetError
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
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
        self._replayed = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"idempotency-replayed":
            self._replayed = value == b"true"

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.closed = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((self._parser.get_status_code(), self._replayed, b"".join(self._body)))

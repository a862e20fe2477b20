"""Buyers on kept connections who note for every request whether it was answered, and if not, where it got lost."""

import asyncio
import json
import time
import uuid
from collections import Counter
from typing import NamedTuple


class Asked(NamedTuple):
    """One request. `status` 0: no answer, and `why` says how the connection ended. `first`: the first request of its
    connection, which nobody may have accepted yet."""

    sent: float
    status: int
    why: str
    first: bool


class Buyers:
    """So many connections, each with one request under way; a new one is opened when the server has closed the old."""

    def __init__(self, url: str, token: str, sku: str, *, pause_seconds: float = 0.0, keep: bool = True) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._place = host, int(port)
        self._head = (
            f"POST /v1/holds HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nConnection: {'keep-alive' if keep else 'close'}\r\nIdempotency-Key: "
        )
        self._body = json.dumps({"lines": [{"sku": sku, "quantity": 1}]})
        self._pause_seconds = pause_seconds
        self._leaving = False
        self.asked: list[Asked] = []
        self.closed_politely = 0
        """Connections that ended with an answer that said so."""
        self.refused = 0

    async def come(self, connections: int) -> None:
        """Until `leave`."""
        await asyncio.gather(*(self._buy() for _ in range(connections)))

    def leave(self) -> None:
        self._leaving = True

    def statuses(self) -> Counter[int]:
        return Counter(one.status for one in self.asked)

    def lost(self) -> list[Asked]:
        """Requests that were sent on a connection that a process had accepted, and never answered."""
        return [one for one in self.asked if one.status == 0 and not one.first]

    async def _buy(self) -> None:
        while not self._leaving:
            try:
                reader, writer = await asyncio.open_connection(*self._place)
            except OSError:
                self.refused += 1
                await asyncio.sleep(0.05)
                continue
            try:
                await self._stay(reader, writer)
            finally:
                writer.close()

    async def _stay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = True
        while not self._leaving:
            if reader.at_eof():  # the server ended it while nobody asked: the client sees that and asks elsewhere
                return
            sent = time.monotonic()
            writer.write(
                f"{self._head}{uuid.uuid4()}\r\nContent-Length: {len(self._body)}\r\n\r\n{self._body}".encode()
            )
            try:
                status, closes = await _answer(reader)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.asked.append(Asked(sent, 0, type(error).__name__, first))
                return
            self.asked.append(Asked(sent, status, "", first))
            first = False
            if closes:
                self.closed_politely += 1
                return
            await asyncio.sleep(self._pause_seconds)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head[9:12]), b"connection: close" in head

"""A man in the middle of any byte stream: passes it on, and misbehaves when told to, or at random.

It stands before the API (HTTP), before Redis or before Postgres, which may listen on a Unix socket; clients always
reach it over TCP on 127.0.0.1.
"""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

Tamper = Callable[[bytes, asyncio.StreamWriter], Awaitable[bytes | None]]

_READ_BYTES = 1 << 20
_DEFAULT_PORTS = {"redis": 6379, "http": 80, "postgresql": 5432}


class Proxy:
    """`async with Proxy(url) as proxy`: connect to `proxy.url` instead. Subclasses tamper with what passes."""

    def __init__(self, url: str) -> None:
        self._target_url = url
        self._target = _address(url)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.url = _moved(self._target_url, self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection."""
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()

    async def going_up(self, data: bytes, to: asyncio.StreamWriter) -> bytes | None:
        """What of a request goes on to the server; None breaks this connection."""
        return data

    async def coming_down(self, data: bytes, to: asyncio.StreamWriter) -> bytes | None:
        """What of a reply goes on to the client; None breaks this connection."""
        return data

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if isinstance(self._target, Path):
                server_reader, server_writer = await asyncio.open_unix_connection(str(self._target))
            else:
                server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:  # the server is away: so are we
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        for source, sink, tamper in ((reader, server_writer, self.going_up), (server_reader, writer, self.coming_down)):
            task = asyncio.create_task(self._pass_on(source, sink, tamper))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, tamper: Tamper) -> None:
        whole = False
        try:
            while data := await source.read(_READ_BYTES):
                left = await tamper(data, sink)
                if left is None:
                    return
                if left:
                    sink.write(left)
                    await sink.drain()
            whole = True
        except OSError:
            return
        finally:
            # At an orderly end what is still buffered must arrive; a break may lose it.
            if whole:
                sink.close()
            else:
                sink.transport.abort()
            self._writers.discard(sink)


@dataclass
class Troubles:
    """What part (0 to 1) of the pieces that pass meets with what. All 0: an honest proxy."""

    drop: float = 0.0
    """The server has done it, but its reply is lost together with the connection."""
    tear: float = 0.0
    """Half of a reply arrives, then the connection ends."""
    reset: float = 0.0
    """The client gets a TCP reset in place of its reply."""
    lose: float = 0.0
    """The request never reaches the server, and the connection ends."""
    swallow: float = 0.0
    """The reply is lost, the connection stays open: the client can only wait until its patience ends."""
    delay: float = 0.0
    delay_ms_max: int = 0


class TroubledProxy(Proxy):
    """Troubles at random, by a seed; `met` counts them. `troubles` may be changed while it runs."""

    def __init__(self, url: str, seed: int, troubles: Troubles | None = None) -> None:
        super().__init__(url)
        self.troubles = troubles or Troubles()
        self.met: Counter[str] = Counter()
        self._random = random.Random(seed)

    async def going_up(self, data: bytes, to: asyncio.StreamWriter) -> bytes | None:
        if self._happens("lose"):
            return None
        return data

    async def coming_down(self, data: bytes, to: asyncio.StreamWriter) -> bytes | None:
        if self._happens("delay"):
            await asyncio.sleep(self._random.uniform(0, self.troubles.delay_ms_max) / 1000)
        if self._happens("drop"):
            return None
        if self._happens("swallow"):
            return b""
        if self._happens("tear"):
            to.write(data[: max(1, len(data) // 2)])
            await to.drain()
            return None
        if self._happens("reset"):
            to.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return None
        return data

    def _happens(self, trouble: str) -> bool:
        share: float = getattr(self.troubles, trouble)
        if not share or self._random.random() >= share:
            return False
        self.met[trouble] += 1
        return True


class ProxyThread:
    """A `TroubledProxy` on a loop of its own, so that it goes on passing bytes while the caller waits for something."""

    def __init__(self, seed: int, troubles: Troubles | None = None) -> None:
        self._seed = seed
        self._troubles = troubles
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.proxy: TroubledProxy | None = None

    def before(self, url: str) -> str:
        """Start to stand before `url`; the URL to use instead."""
        self._thread.start()
        self.proxy = TroubledProxy(url, self._seed, self._troubles)
        asyncio.run_coroutine_threadsafe(self.proxy.__aenter__(), self._loop).result(10)
        return self.proxy.url

    def cut(self) -> None:
        """Break every connection."""
        assert self.proxy is not None, "`before` comes first"
        self._loop.call_soon_threadsafe(self.proxy.cut)

    def stop(self) -> None:
        if self.proxy is not None:
            asyncio.run_coroutine_threadsafe(self.proxy.__aexit__(None, None, None), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def _address(url: str) -> tuple[str, int] | Path:
    """Where a server listens: host and port, or the path of its socket."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return Path(unquote(parts.path))
    directory = parse_qs(parts.query).get("host", [""])[0]
    if directory.startswith("/"):
        return Path(directory) / f".s.PGSQL.{parse_qs(parts.query).get('port', ['5432'])[0]}"
    return parts.hostname or "127.0.0.1", parts.port or _DEFAULT_PORTS[parts.scheme]


def _moved(url: str, port: int) -> str:
    """The same URL at another port of 127.0.0.1, over TCP."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"redis://127.0.0.1:{port}/0"
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}127.0.0.1:{port}{parts.path}"

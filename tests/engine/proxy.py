"""A man in the middle: passes bytes between an engine and a real server, and misbehaves when told to."""

import asyncio
from types import TracebackType
from urllib.parse import urlsplit


class Proxy:
    """`async with Proxy(url) as proxy`: connect to `proxy.url` instead. The faults are for the next reply only."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self._last_reply = b""
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.repeat_last_reply = False
        """Give the previous reply once more in front of the next one: every later answer is one off."""
        self.cut_before_reply = False
        """The server has carried the command out, but its reply is lost with the connection."""
        self.commands_seen = 0

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, server_writer]
        for source, sink, down in ((reader, server_writer, False), (server_reader, writer, True)):
            task = asyncio.create_task(self._pass_on(source, sink, down=down))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, down: bool) -> None:
        try:
            while data := await source.read(1 << 20):
                if down:
                    data = self._tampered(data)
                    if not data:
                        return
                else:
                    self.commands_seen += data.count(b"EVALSHA")
                sink.write(data)
                await sink.drain()
        except OSError:
            return
        finally:
            sink.transport.abort()

    def _tampered(self, data: bytes) -> bytes:
        if self.cut_before_reply:
            self.cut_before_reply = False
            self.cut()
            return b""
        if self.repeat_last_reply:
            self.repeat_last_reply = False
            data = self._last_reply + data
        self._last_reply = data
        return data

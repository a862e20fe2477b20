"""A man in the middle: passes bytes between an engine and a real server, and misbehaves when told to."""

import asyncio

from tests.faults import proxy


class Proxy(proxy.Proxy):
    """`async with Proxy(url) as proxy`: connect to `proxy.url` instead. The faults are for the next reply only."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._last_reply = b""
        self.repeat_last_reply = False
        """Give the previous reply once more in front of the next one: every later answer is one off."""
        self.cut_before_reply = False
        """The server has carried the command out, but its reply is lost with the connection."""
        self.slow_s = 0.0
        """Every reply comes so much later."""
        self.commands_seen = 0

    async def going_up(self, data: bytes, to: asyncio.StreamWriter) -> bytes | None:
        self.commands_seen += data.count(b"EVALSHA")
        return data

    async def coming_down(self, data: bytes, to: asyncio.StreamWriter) -> bytes | None:
        await asyncio.sleep(self.slow_s)
        if self.cut_before_reply:
            self.cut_before_reply = False
            self.cut()
            return None
        if self.repeat_last_reply:
            self.repeat_last_reply = False
            data = self._last_reply + data
        self._last_reply = data
        return data

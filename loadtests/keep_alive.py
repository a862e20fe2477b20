"""A kept-alive HTTP/1.1 connection for Locust's green threads, a few times cheaper than its own client.

With Locust's client the driver would need more of the machine than any server under test, and all designs would look
equally fast. Under Locust, `socket` is gevent's: a wait here lets the other buyers go on.
"""

import socket
from urllib.parse import urlsplit

_CHUNK = 65_536


class KeepAlive:
    """One connection, one request at a time. Opened at the first request and again after a failure."""

    def __init__(self, url: str, headers: dict[str, str], timeout_seconds: float) -> None:
        place = urlsplit(url)
        self._address = (place.hostname or "127.0.0.1", place.port or 80)
        self._timeout_seconds = timeout_seconds
        fixed = {"Host": f"{self._address[0]}:{self._address[1]}", **headers}
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in fixed.items())
        self._socket: socket.socket | None = None

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body of the answer. Raises OSError when none came; the next call opens a new connection."""
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {path} HTTP/1.1\r\n{self._fixed}{more}Content-Length: {len(body)}\r\n\r\n"
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, self._timeout_seconds)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(head.encode() + body)
            return self._receive(self._socket)
        except OSError:
            self.close()
            raise

    def _receive(self, source: socket.socket) -> tuple[int, bytes]:
        got = b""
        while (head_ends := got.find(b"\r\n\r\n")) < 0:
            got += _some(source)
        head = got[:head_ends].lower()
        at = head.find(b"content-length:")
        if at < 0:
            raise ConnectionError(f"an answer without Content-Length: {head!r}")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        while len(got) < head_ends + 4 + length:
            got += _some(source)
        if b"connection: close" in head:
            self.close()
        return int(got[9:12]), got[head_ends + 4 :]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _some(source: socket.socket) -> bytes:
    data = source.recv(_CHUNK)
    if not data:
        raise ConnectionError("the server closed the connection")
    return data

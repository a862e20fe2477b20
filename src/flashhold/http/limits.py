"""Limits before anything is parsed: how many headers, how many bytes of them, how long a request may take to arrive.

They stand below ASGI, because an application only ever sees whole heads.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from flashhold.http.problems import MEDIA_TYPE, Problem
from flashhold.settings import Settings

DISCARDED_BYTES_MAX = 16 * 1024 * 1024
"""Read and thrown away behind a refused body, so that the client gets to the answer; then the connection ends."""
LEAVING_SECONDS = 1.0
"""For how long a process that ends still listens to connections that are silent: a request that is on its way would
meet a reset. Whoever asks meanwhile gets his answer with `connection: close`; a busy client does within a second."""


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol that gives up on requests which are too large in the head or too slow as a whole.

    A request that arrives in one piece, as nearly all do, costs a comparison or two here and no timer.
    """

    _in_head = False
    _arriving = False
    cycle_is_current = False
    """Whether `cycle` belongs to the request that is arriving, not to the one before it."""
    _one_ended = False
    """Whether a request ended within the piece of data at hand."""
    _head_bytes = 0
    _piece_bytes = 0
    """What a head that ends in the piece of data at hand can have at most."""
    _body_bytes = 0
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    """Ends the connection of a client that does not read its answers: as patiently as one that does not send."""
    leaving = False
    """Whether this process ends: the next answer is the connection's last."""

    def __init__(self, settings: Settings, **server: Any) -> None:
        super().__init__(**server)
        self.headers_max = settings.headers_max
        self.header_bytes_max = settings.header_bytes_max
        self.receipt_timeout_seconds = settings.receipt_timeout_ms / 1000
        self.connections_max = settings.connections_max

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self._stop_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.receipt_timeout_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_unread()
        super().resume_writing()

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def data_received(self, data: bytes) -> None:
        self._one_ended = False
        self._piece_bytes = len(data) + self._head_bytes
        super().data_received(data)
        if not self._arriving:
            return
        if self._in_head and not self._one_ended:
            # All of this piece belongs to a head that is not complete yet.
            self._head_bytes += len(data)
            if self._head_bytes > self.header_bytes_max:
                self.give_up("headers-too-large")
                return
        if self._deadline is None:
            self._start_deadline()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._arriving = True
        self.cycle_is_current = False
        self._head_bytes = self._body_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self.transport.is_closing():
            return
        if len(self.headers) > self.headers_max or (
            self._piece_bytes > self.header_bytes_max and self._is_head_too_large()
        ):
            self.give_up("headers-too-large")
            return
        if len(self.connections) > self.connections_max:
            self.give_up("overloaded")
            return
        self.start_request()
        self.cycle_is_current = True
        if self.leaving:
            self.cycle.keep_alive = False

    def start_request(self) -> None:
        """The head is complete and within the limits."""
        super().on_headers_complete()

    def _is_head_too_large(self) -> bool:
        # A piece of 256 kB can bring a whole head at once, which the count in `data_received` doesn't see.
        return len(self.url) + sum([len(name) + len(value) for name, value in self.headers]) > self.header_bytes_max

    def shutdown(self) -> None:
        """The server ends: finish what has begun, and let nobody ask in vain who could not know."""
        self.leaving = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif not self._arriving:
            self.loop.call_later(LEAVING_SECONDS, self._leave)

    def _leave(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and not self._arriving and not self.transport.is_closing():
            self.transport.close()

    def on_body(self, body: bytes) -> None:
        if self.transport.is_closing():
            return
        super().on_body(body)
        if self.cycle is not None and self.cycle.response_complete:
            self._body_bytes += len(body)
            if self._body_bytes > DISCARDED_BYTES_MAX:
                self.transport.close()

    def on_message_complete(self) -> None:
        self._arriving = False
        self._one_ended = True
        if self._deadline is not None:
            self._stop_deadline()
        if not self.transport.is_closing():
            self.request_complete()

    def request_complete(self) -> None:
        """The last byte is here."""
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Where the bytes are no HTTP; a head that was refused already has its answer."""
        if not self.transport.is_closing():
            self.give_up("malformed-request", msg)

    def give_up(self, code: str, detail: str | None = None) -> None:
        """Answer with a problem where an answer can still be told apart from those before it; end the connection."""
        self._in_head = self._arriving = False
        self._stop_deadline()
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if self.cycle_is_current:
            may_answer = not cycle.response_started and not self.pipeline
        else:
            may_answer = cycle is None or cycle.response_complete
        if may_answer:
            self.transport.write(_raw_answer(Problem(code, detail), self.server_state.default_headers))
        if cycle is not None and not cycle.response_complete:
            # Its application must not write behind this answer.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.receipt_timeout_seconds, self._too_slow)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self._arriving:
            self.give_up("request-timeout")
        elif self.cycle is None and not self.transport.is_closing():
            # A connection on which nobody has said anything yet.
            self.transport.close()


def _raw_answer(problem: Problem, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    body = problem.body()
    headers = [
        *default_headers,
        *problem.headers,
        (b"content-type", MEDIA_TYPE),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join([STATUS_LINE[problem.status], *lines, b"\r\n", body])

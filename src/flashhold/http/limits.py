"""The server's edge: limits before anything is parsed, and answers that leave in one write.

How many headers, how many bytes of them, and how long a request may take to arrive are decided here, below ASGI,
because an application only ever sees whole heads.
"""

import asyncio
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from flashhold.http.problems import MEDIA_TYPE, Problem
from flashhold.http.responses import Answer
from flashhold.settings import Settings

AT_ONCE = "flashhold.answer"
"""The ASGI extension by which an application hands over a whole `Answer`."""

DISCARDED_BYTES_MAX = 16 * 1024 * 1024
"""Read and thrown away behind a refused body, so that the client gets to the answer; then the connection ends."""


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol that gives up on requests which are too large in the head or too slow as a whole.

    A request that arrives in one piece, as nearly all do, costs a comparison or two here and no timer.
    """

    _in_head = False
    _arriving = False
    _cycle_is_current = False
    """Whether `cycle` belongs to the request that is arriving, not to the one before it."""
    _one_ended = False
    """Whether a request ended within the piece of data at hand."""
    _head_bytes = 0
    _body_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

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
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._one_ended = False
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
        self._cycle_is_current = False
        self._head_bytes = self._body_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self.transport.is_closing():
            return
        if self._is_head_too_large():
            self.give_up("headers-too-large")
            return
        if len(self.connections) > self.connections_max:
            self.give_up("overloaded")
            return
        super().on_headers_complete()
        self._cycle_is_current = True
        at_once: Any = partial(self._answer_at_once, self.cycle)
        self.scope["extensions"] = {AT_ONCE: at_once}

    def _answer_at_once(self, cycle: RequestResponseCycle, answer: Answer) -> bool:
        """Write a whole answer at once; False where it must go the usual way.

        ASGI's two messages become two `write` calls, each a system call, and a check of every header by two regular
        expressions: together a third of a hold's cost. Our own headers are known to be well-formed.
        """
        if self.flow.write_paused or cycle.disconnected or cycle.response_started or not cycle.keep_alive:
            return False
        lines = [b"%b: %b\r\n" % header for header in answer.headers]
        head = (STATUS_LINE[answer.status], *self._date(), b"content-length: %d\r\n" % len(answer.body), *lines)
        self.transport.write(b"".join((*head, b"\r\n", answer.body)))
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        cycle.on_response()
        return True

    def _date(self) -> list[bytes]:
        return [b"%b: %b\r\n" % header for header in self.server_state.default_headers]

    def _is_head_too_large(self) -> bool:
        if len(self.headers) > self.headers_max:
            return True
        # A piece of 256 kB can bring a whole head at once, which the count in `data_received` doesn't see.
        return len(self.url) + sum([len(name) + len(value) for name, value in self.headers]) > self.header_bytes_max

    def on_body(self, body: bytes) -> None:
        if self.transport.is_closing():
            return
        super().on_body(body)
        if self.cycle.response_complete:
            self._body_bytes += len(body)
            if self._body_bytes > DISCARDED_BYTES_MAX:
                self.transport.close()

    def on_message_complete(self) -> None:
        self._arriving = False
        self._one_ended = True
        if self._deadline is not None:
            self._stop_deadline()
        if not self.transport.is_closing():
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
        if self._cycle_is_current:
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

"""The thin path: the hot verbs go from the server's protocol straight to the engine, without ASGI and without a task.

An empty FastAPI route costs three times what a hold costs here; scope, task, event and six coroutines alone cost as
much as a hold's share of its batch. So a request for a hot verb that is in order in every respect (known key, one
idempotency key, plain JSON of announced length, nothing pipelined before it) is decoded as soon as its last byte is
here, and answered in the callback of its outcome, in one write. Everything else, hot verbs in any less usual form
included, goes through FastAPI. Both carry out the same rows of `verbs.VERBS`, so they cannot answer differently.
"""

import asyncio
import time
from functools import cache, partial
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from flashhold.domain.commands import Command
from flashhold.domain.errors import FlashHoldError, Overloaded
from flashhold.domain.idempotency import KEY_PATTERN
from flashhold.http.auth import bearer_token
from flashhold.http.front import Front, faulty
from flashhold.http.limits import LimitedProtocol
from flashhold.http.problems import Problem
from flashhold.http.responses import Answer, problem_answer
from flashhold.http.schemas import Request
from flashhold.http.turnstile import Turnstile
from flashhold.http.verbs import (
    COMMIT,
    HOLD,
    HOLDS_PREFIX,
    MOVE,
    MayBeInLedger,
    Verb,
    answer_of,
    decided_again,
    problem_of,
)
from flashhold.settings import Settings

_EXACT = {HOLD.path.encode(): HOLD, MOVE.path.encode(): MOVE}
_PREFIX = HOLDS_PREFIX.encode()
_COMMIT = b"/commit"
_JSON = b"application/json"
_HOLD_LINE = b"POST %b HTTP/1.1\r\n" % HOLD.path.encode()
_BATCHES_WAITING = 2
"""May always wait: one that is sent as soon as the one under way is answered, and what comes meanwhile."""


class NoEvent:
    """Stands for the event on which an ASGI application would wait for its body."""

    def set(self) -> None:
        """There is no application that waits."""


_NO_EVENT = NoEvent()


class HotRequest:
    """A request on the thin path. It takes the place of uvicorn's cycle, so that what is pipelined behind it waits."""

    __slots__ = ("asking", "began", "body", "disconnected", "keep_alive", "key", "message_event", "response_complete",
                 "response_started", "subject", "verb")  # fmt: skip

    asking: "asyncio.Future[Any]"
    """The question to the ledger, held on to until it is answered; most requests have none."""

    def __init__(self, verb: Verb, key: str | None, subject: str) -> None:
        self.verb = verb
        self.key = key
        self.subject = subject
        self.body = b""
        self.began = 0.0
        self.keep_alive = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.message_event = _NO_EVENT


class HotProtocol(LimitedProtocol):
    """The server's protocol with the thin path in it, where the application is a `Front`."""

    _joined: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")

    def __init__(self, settings: Settings, **server: Any) -> None:
        super().__init__(settings, **server)
        self._front = self.app if isinstance(self.app, Front) else None
        self._turnstile = self._shared_turnstile(settings)

    def _shared_turnstile(self, settings: Settings) -> Turnstile:
        """One for all connections of a server."""
        front, state = self._front, self.server_state
        if front is not None and front.turnstile is not None:
            return front.turnstile
        stores = None if front is None else front.door.stores
        made = Turnstile(
            self.loop,
            waiting=lambda: 0 if stores is None else stores.waiting,
            answered=lambda: state.total_requests,
            room=_BATCHES_WAITING * settings.batch_size_max,
        )
        if front is not None:
            front.turnstile = made
        return made

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        self._turnstile.watch(lambda: bool(self.connections))
        if self._turnstile.leaving:
            self.shutdown()

    def shutdown(self) -> None:
        self._turnstile.leaving = True
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self._turnstile.crowded and self._is_whole_hold(data) and self._turnstile.full():
            self._turn_away_unread()
        else:
            super().data_received(data)

    def _is_whole_hold(self, data: bytes) -> bool:
        """Whether this is all of a request for a hold, with nothing before or behind it on the connection. In doubt
        not: then it is parsed, and may still be turned away."""
        if not data.startswith(_HOLD_LINE) or self._arriving or self.transport.is_closing():
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        head = data[: data.find(b"\r\n\r\n") + 2].lower()
        if any(word in head for word in (b"transfer-encoding", b"expect", b"close", b"upgrade")):
            return False
        at = head.find(b"\ncontent-length:")
        length = head[at + 16 : head.find(b"\r", at + 16)].strip()
        if at < 0 or not length.isdigit() or len(length) > 9 or len(head) > self.header_bytes_max:
            return False
        return len(data) == len(head) + 2 + int(length)

    def _turn_away_unread(self) -> None:
        self._unset_keepalive_if_required()
        if self._deadline is not None:
            self._stop_deadline()
        request = HotRequest(HOLD, None, "")
        request.began = time.perf_counter()
        request.keep_alive = not self.leaving
        self.cycle = cast(Any, request)
        self.cycle_is_current = True
        self._turn_away(request)

    def _turn_away(self, request: HotRequest) -> None:
        self._turnstile.turn_away(partial(self._answer, request, _overloaded()))

    def start_request(self) -> None:
        request = self._hot_request()
        if request is None:
            super().start_request()
        else:
            self.cycle = cast(Any, request)

    def on_body(self, body: bytes) -> None:
        cycle: Any = self.cycle
        if type(cycle) is HotRequest and self.cycle_is_current:
            cycle.body += body
        else:
            super().on_body(body)

    def request_complete(self) -> None:
        cycle: Any = self.cycle
        if type(cycle) is HotRequest:
            self._carry_out(cycle)
        else:
            super().request_complete()

    def _hot_request(self) -> HotRequest | None:
        """The request whose head has just come, if it can take the thin path in every respect."""
        verb = _EXACT.get(self.url)
        subject = ""
        if verb is None:
            if not (self.url.endswith(_COMMIT) and self.url.startswith(_PREFIX)):
                return None
            verb, subject = COMMIT, self.url[len(_PREFIX) : -len(_COMMIT)].decode("latin-1")
            if not subject.replace("_", "").replace("-", "").isalnum():
                return None
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self._front is None or self.flow.write_paused or self.expect_100_continue:
            return None
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return None
        return self._in_order(verb, subject, self._front)

    def _in_order(self, verb: Verb, subject: str, front: Front) -> HotRequest | None:
        found: dict[bytes, bytes] = dict(self.headers)
        if len(found) != len(self.headers) or found.get(b"content-type") != _JSON or b"content-encoding" in found:
            return None
        length = found.get(b"content-length", b"")
        if not length.isdigit() or int(length[:9]) > front.door.body_bytes_max or len(length) > 9:
            return None
        key = found.get(b"idempotency-key")
        text = None if key is None else key.decode("latin-1")
        if verb.key_required if text is None else KEY_PATTERN.fullmatch(text) is None:
            return None
        caller = front.door.keys.find(bearer_token(found.get(b"authorization")))
        if caller is None or not caller.scopes & verb.needs:
            return None
        return HotRequest(verb, text, subject)

    def _carry_out(self, request: HotRequest) -> None:
        assert self._front is not None, "or it would not be hot"
        request.began = time.perf_counter()
        verb = request.verb
        if verb is HOLD and self._turnstile.crowded and self._turnstile.full():
            self._turn_away(request)
            return
        try:
            command = verb.command(verb.body.read(request.body), Request(request.key, request.subject))
            future = self._front.door.decider().submit(command)
        except Overloaded:
            self._turn_away(request)
        except (Problem, FlashHoldError) as problem:
            self._answer(request, problem_of(problem))
        except Exception as fault:  # noqa: BLE001  the last resort, as in `Front`
            self._answer(request, faulty(self._front.door, fault, verb.path))
        else:
            future.add_done_callback(partial(self._decided, request, command))

    def _decided(self, request: HotRequest, command: Command, future: "asyncio.Future[Any]") -> None:
        assert self._front is not None, "or it would not be hot"
        try:
            answer = answer_of(request.verb, command, future.result())
        except MayBeInLedger as asked:
            request.asking = asyncio.ensure_future(decided_again(self._front.door, asked))
            request.asking.add_done_callback(partial(self._decided, request, asked.without_asking))
            return
        except (Problem, FlashHoldError) as problem:
            answer = problem_of(problem)
        except Exception as fault:  # noqa: BLE001  the last resort, as in `Front`
            answer = faulty(self._front.door, fault, request.verb.path)
        self._answer(request, answer)

    def _date(self) -> bytes:
        """The header lines that the server makes anew each second, joined once and not for every answer."""
        headers = self.server_state.default_headers
        if HotProtocol._joined[0] is not headers:
            HotProtocol._joined = (headers, b"".join([b"%b: %b\r\n" % header for header in headers]))
        return HotProtocol._joined[1]

    def _answer(self, request: HotRequest, answer: Answer) -> None:
        """Write a whole answer at once: uvicorn's two messages would be two system calls, and two regular expressions
        for every header, of which ours are known to be well-formed."""
        assert self._front is not None, "or it would not be hot"
        self._front.door.metrics.observe(request.verb.name, answer.status, time.perf_counter() - request.began)
        request.response_complete = True
        if request.disconnected or self.transport.is_closing():
            return
        parts = [STATUS_LINE[answer.status], self._date()]
        for name, value in answer.headers:
            parts += (name, b": ", value, b"\r\n")
        if not request.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"content-length: %d\r\n\r\n" % len(answer.body))
        parts.append(answer.body)
        self.transport.write(b"".join(parts))
        if not request.keep_alive:
            self.transport.close()
        self.on_response_complete()


@cache
def _overloaded() -> Answer:
    """What all are told who are turned away."""
    return problem_answer(Problem("overloaded"))

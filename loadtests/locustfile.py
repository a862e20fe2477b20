"""The drop: one hot SKU, a crowd of buyers at once, and what buyers really do.

Run by `make drop`; by hand, against any server that speaks the contract's hold and commit:

    DROP_SKU=HOT DROP_BUYERS=5000 DROP_TOKEN=… DROP_ANSWERS=/tmp/answers.jsonl \
        locust -f loadtests/locustfile.py --headless -u 200 -r 200 --host http://127.0.0.1:8000

A Locust user is a device, not a buyer: it serves one buyer after another, so that 200 connections are enough
for a crowd of thousands, and the machine spends its time on the drop and not on the driver.
"""

import json
import os
import time
import uuid
from collections import deque
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from gevent.pool import Group
from locust import User, constant, events, task

from loadtests.crowd import CART_SECONDS, PAYING_SECONDS, Buyer, Habit, crowd
from loadtests.keep_alive import KeepAlive
from loadtests.tally import Answer, write_answers

_TRIES_MAX = 8
"""How often one request is repeated with its key while the server says 429, 503 or nothing."""
_COME_BACK_SECONDS = 0.5
_TIMEOUT_SECONDS = 10.0


class _Drop:
    """One run: who is still to come, who is still busy, and every answer given so far."""

    def __init__(self) -> None:
        people = crowd(int(os.environ.get("DROP_BUYERS", "5000")), int(os.environ.get("DROP_SEED", "1")))
        self.sku = os.environ.get("DROP_SKU", "HOT")
        self.run = uuid.uuid4().hex[:8]
        self.waiting = deque(buyer for buyer in people if not buyer.latecomer)
        self.latecomers = [buyer for buyer in people if buyer.latecomer]
        self.busy = Group()
        self.answers: list[Answer] = []

    def conduct(self, environment: Any) -> None:
        """Let the latecomers in when every abandoned cart is overdue; stop when they are served."""
        self._until_served()
        # The last cart may have been filled this moment; a second more for those who free them with a timer.
        gevent.sleep(CART_SECONDS + 1.0)
        self.waiting.extend(self.latecomers)
        self._until_served()
        write_answers(Path(os.environ["DROP_ANSWERS"]), self.answers)
        environment.runner.quit()

    def _until_served(self) -> None:
        while self.waiting or len(self.busy):
            gevent.sleep(0.02)


_drop = _Drop()


@events.test_start.add_listener
def _begin(environment: Any, **_: Any) -> None:
    gevent.spawn(_drop.conduct, environment)


class Device(User):
    """Serves the buyers of the crowd, one at a time, plus those who come back to pay late."""

    wait_time = constant(0)

    def on_start(self) -> None:
        headers = {
            "Authorization": f"Bearer {os.environ.get('DROP_TOKEN', 'none')}",
            "Content-Type": "application/json",
        }
        # Free connections; a second one for the second click. The last one freed is used first and stays warm.
        self._open = partial(KeepAlive, self.host or "", headers, _TIMEOUT_SECONDS)
        self._free = [self._open() for _ in range(2)]

    @task
    def serve(self) -> None:
        if not _drop.waiting:
            gevent.sleep(0.02)
            return
        buyer = _drop.waiting.popleft()
        served = _drop.busy.spawn(self._shop, buyer, 0)
        served.join()

    def _shop(self, buyer: Buyer, visit: int) -> None:
        key = f"{_drop.run}-{buyer.number}-{visit}"
        if buyer.habit is Habit.DOUBLE_CLICKS:
            clicks = [gevent.spawn(self._hold, buyer, key) for _ in range(2)]
            gevent.joinall(clicks)
            answer = clicks[0].value
        else:
            answer = self._hold(buyer, key)
            if buyer.habit is Habit.RETRIES:
                answer = self._hold(buyer, key)
        if answer.status == 409 and visit < buyer.returns:
            _drop.busy.add(gevent.spawn_later(_COME_BACK_SECONDS, self._shop, buyer, visit + 1))
        if answer.status == 201:
            self._decide(buyer, answer)

    def _decide(self, buyer: Buyer, hold: Answer) -> None:
        match buyer.habit:
            case Habit.ABANDONS:
                return
            case Habit.PAYS_LATE:
                _drop.busy.add(gevent.spawn_later(CART_SECONDS + 0.5, self._commit, buyer, hold))
            case Habit.CHANGES_MIND:
                self._follow("release", buyer, hold, {"reason": "changed mind"})
            case Habit.RETRIES:
                self._commit(buyer, hold)
                self._commit(buyer, hold)
            case Habit.PAYS | Habit.DOUBLE_CLICKS:
                self._commit(buyer, hold)

    def _hold(self, buyer: Buyer, key: str) -> Answer:
        short = buyer.habit in (Habit.ABANDONS, Habit.PAYS_LATE)
        body = {
            "lines": [{"sku": _drop.sku, "quantity": buyer.quantity}],
            "buyer": f"buyer-{buyer.number}",
            "ttl_seconds": CART_SECONDS if short else PAYING_SECONDS,
        }
        return self._ask("/v1/holds", body, Answer.to_come(buyer.number, "hold", key, buyer.quantity))

    def _commit(self, buyer: Buyer, hold: Answer) -> None:
        self._follow("commit", buyer, hold, {"reference": f"order-{hold.key}"})

    def _follow(self, verb: str, buyer: Buyer, hold: Answer, body: dict[str, Any]) -> None:
        asked = Answer.to_come(buyer.number, verb, hold.key, buyer.quantity, hold.hold)
        self._ask(f"/v1/holds/{hold.hold}/{verb}", body, asked)

    def _ask(self, path: str, body: dict[str, Any], asked: Answer) -> Answer:
        """Send, and send again with the same key while the outcome is unknown; record every answer."""
        headers = {"Idempotency-Key": asked.key} if asked.verb == "hold" else {}
        for attempt in range(_TRIES_MAX):
            answer = self._send(path, json.dumps(body).encode(), headers, asked)
            _drop.answers.append(answer)
            if answer.status not in (0, 429, 503):
                break
            gevent.sleep(0.1 * 2**attempt)
        return answer

    def _send(self, path: str, body: bytes, headers: dict[str, str], asked: Answer) -> Answer:
        connection = self._free.pop() if self._free else self._open()
        sent = time.time()
        trouble: Exception | None = None
        try:
            status, text = connection.post(path, body, headers)
        except OSError as error:
            status, text, trouble = 0, b"", error
        answered = time.time()
        self._free.append(connection)
        if status not in (0, 200, 201, 409):
            trouble = RuntimeError(f"{status} {text[:200]!r}")
        self.environment.events.request.fire(
            request_type="POST",
            name=asked.verb,
            response_time=(answered - sent) * 1e3,
            response_length=len(text),
            exception=trouble,
            context={},
        )
        told = _json(text)
        return asked._replace(
            sent=sent,
            answered=answered,
            status=status,
            code=told.get("code"),
            hold=told.get("id", asked.hold),
            expires=_seconds(told.get("expires_at")),
        )


def _json(text: bytes) -> dict[str, Any]:
    """The answer's object; nothing of an answer that is not one, which the status then tells."""
    try:
        told = json.loads(text or b"{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _seconds(instant: str | None) -> float | None:
    return datetime.fromisoformat(instant).timestamp() if instant else None

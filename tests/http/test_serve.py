"""The parent and its HTTP processes: restarts, shared figures, a clean end."""

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from flashhold.domain.errors import Misconfigured
from flashhold.http.serve import run
from flashhold.ledger.api_keys import new_key, register
from flashhold.settings import Settings
from tests.conftest import free_port
from tests.http.conftest import serving, valkey


@pytest.fixture
def environ(redis_servers: Callable[[str], str], database_url: str) -> Iterator[dict[str, str]]:
    """The variables of a deployment whose admin's key is in KEY."""
    key = new_key()
    register(database_url, key, ["admin"])
    yield {"FLASHHOLD_REDIS_URL": valkey(redis_servers), "FLASHHOLD_DATABASE_URL": database_url, "KEY": key}


def children(pid: int) -> list[int]:
    """The HTTP processes of a parent (not multiprocessing's resource tracker)."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


# A connection a request, so that both processes get some; and one TLS context for all, which costs more than they do.
plain = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))


def receive(url: str, key: str, sku: str = "s", units: int = 100_000) -> None:
    body = {"type": "receipt", "sku": sku, "quantity": units}
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": uuid.uuid4().hex}
    plain.post(f"{url}/v1/movements", json=body, headers=headers).raise_for_status()


def holds_counted(url: str) -> float:
    text = plain.get(f"{url}/metrics").text
    name = 'flashhold_http_request_seconds_count{route="hold",status="201"} '
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


def test_two_processes_share_the_port_and_the_figures(environ: dict[str, str]) -> None:
    """Whichever process is asked, the metrics are those of all; one that is killed is replaced and its counts stay."""
    with serving(2, **environ) as (parent, url):
        receive(url, environ["KEY"])
        body = {"lines": [{"sku": "s", "quantity": 1}]}
        for _ in range(40):
            headers = {"Authorization": f"Bearer {environ['KEY']}", "Idempotency-Key": uuid.uuid4().hex}
            assert plain.post(f"{url}/v1/holds", json=body, headers=headers).status_code == 201
        deadline = time.monotonic() + 5
        while holds_counted(url) < 40:  # an answer is counted right after it has been sent
            assert time.monotonic() < deadline, "not counted"
        assert {holds_counted(url) for _ in range(10)} == {40.0}
        before = children(parent.pid)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while len(set(children(parent.pid)) - {before[0]}) < 2:
            assert time.monotonic() < deadline, "not replaced"
            time.sleep(0.1)
        assert holds_counted(url) == 40.0


def test_sigterm_finishes_what_is_in_flight(environ: dict[str, str]) -> None:
    """Every request that the server took is answered; what came too late finds no server. None is cut off."""
    with serving(1, **environ) as (parent, url):
        receive(url, environ["KEY"])
        outcomes: list[int | str] = []

        def shop() -> None:
            body = {"lines": [{"sku": "s", "quantity": 1}]}
            with httpx.Client() as client:
                while True:
                    headers = {"Authorization": f"Bearer {environ['KEY']}", "Idempotency-Key": uuid.uuid4().hex}
                    try:
                        outcomes.append(client.post(f"{url}/v1/holds", json=body, headers=headers).status_code)
                    except httpx.TransportError as error:
                        outcomes.append(type(error).__name__)
                        return

        shoppers = [threading.Thread(target=shop) for _ in range(8)]
        for shopper in shoppers:
            shopper.start()
        time.sleep(1)
        began = time.monotonic()
        parent.send_signal(signal.SIGTERM)
        for shopper in shoppers:
            shopper.join(20)
        assert parent.wait(20) == 0
        assert time.monotonic() - began < 10
        assert outcomes.count(201) > 8
        assert set(outcomes) <= {201, "ConnectError", "RemoteProtocolError", "ReadError"}


def test_children_end_with_a_killed_parent(environ: dict[str, str]) -> None:
    """No orphan keeps the port when the parent is killed outright."""
    with serving(1, **environ) as (parent, url):
        (child,) = children(parent.pid)
        parent.kill()
        parent.wait(5)
        deadline = time.monotonic() + 10
        while Path(f"/proc/{child}").exists():
            assert time.monotonic() < deadline, "an orphan is left"
            time.sleep(0.05)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")


def test_a_taken_port_is_said_plainly() -> None:
    """A port that somebody has is a misconfiguration with words, not a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Misconfigured, match=r"cannot listen on 127\.0\.0\.1"):
            run(Settings(port=taken.getsockname()[1]))


def test_it_starts_before_its_stores(environ: dict[str, str]) -> None:
    """The API comes up without Redis, says what is missing, and refuses to decide."""
    port = free_port()
    lost = {**environ, "FLASHHOLD_REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    headers = {"Authorization": f"Bearer {environ['KEY']}", "Idempotency-Key": "k"}
    with serving(1, expect=503, **lost) as (_, url):
        told = httpx.get(f"{url}/readyz").json()
        assert (told["ready"], told["code"]) == (False, "store-unavailable")
        body = {"lines": [{"sku": "s", "quantity": 1}]}
        answer = httpx.post(f"{url}/v1/holds", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "store-unavailable")

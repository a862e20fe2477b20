"""A temporary FlashHold, started as an operator would: `flashhold up` on an empty directory and a free port."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from loadtests import stores

_COMMAND = (sys.executable, "-P", "-m", "flashhold")
_READY_SECONDS = 90.0


class Server:
    """A running FlashHold and an admin's key to it."""

    def __init__(self, url: str, data: Path) -> None:
        self.url = url
        self.data = data
        self.token = (data / "admin.key").read_text().strip()
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30.0)

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **parameters: str | int) -> dict[str, Any]:
        """The answer's object. Raises httpx.HTTPStatusError on a refusal."""
        answer = self._client.get(path, params=parameters)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told

    def receive(self, sku: str, units: int) -> None:
        """Put units on sale."""
        body = {"type": "receipt", "sku": sku, "quantity": units, "reference": "drop"}
        answer = self._client.post("/v1/movements", json=body, headers={"Idempotency-Key": uuid.uuid4().hex})
        answer.raise_for_status()

    def ledger(self, sku: str) -> list[dict[str, Any]]:
        """Every entry of a SKU, in ledger order."""
        entries: list[dict[str, Any]] = []
        more: dict[str, str | int] = {}
        while True:
            page = self.get("/v1/ledger", sku=sku, limit=1000, **more)
            entries += page["items"]
            if not page["next_cursor"]:
                return entries
            more = {"cursor": page["next_cursor"]}

    def durability(self) -> str:
        """Where an acknowledged hold is, in words."""
        told = json.loads(_flashhold("doctor", {}, "--data-dir", str(self.data), "--json"))
        return f"{told['versions']['redis']}, fsync"

    def audit(self) -> tuple[int, dict[str, Any]]:
        """Exit status and report of `flashhold audit`."""
        words = [*_COMMAND, "audit", "--data-dir", str(self.data), "--json"]
        ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        try:
            told: dict[str, Any] = json.loads(ran.stdout)
        except ValueError:
            told = {"error": ran.stderr[-2000:]}
        return ran.returncode, told


@contextmanager
def up(directory: Path) -> Iterator[Server]:
    """`flashhold up` until the block ends."""
    data, port = directory / "data", stores.free_port()
    words = [*_COMMAND, "up", "--data-dir", str(data), "--port", str(port)]
    # One API process, as each baseline has one: designs are compared, not numbers of processes.
    environment = {"FLASHHOLD_PROCESSES": "1"}
    url, log = f"http://127.0.0.1:{port}", directory / "up.log"
    with stores.running(words, log, environment=environment) as process:
        stores.until(lambda: stores.answers(f"{url}/readyz"), process, log, _READY_SECONDS)
        server = Server(url, data)
        try:
            yield server
        finally:
            server.close()


@contextmanager
def serve(
    directory: Path, redis_url: str, database_url: str, *, core: int | None = None, level: str = "disk"
) -> Iterator[tuple[str, str]]:
    """One API process on stores of the caller's, with nothing else running; yields its URL and an admin's key."""
    port = stores.free_port()
    environment = {
        "FLASHHOLD_DURABILITY": level,
        "FLASHHOLD_REDIS_URL": redis_url,
        "FLASHHOLD_DATABASE_URL": database_url,
        "FLASHHOLD_PORT": str(port),
        "FLASHHOLD_PROCESSES": "1",
        "FLASHHOLD_LOG_LEVEL": "warning",
    }
    _flashhold("migrate", environment)
    made = _flashhold("keys", environment, "create", "--scope", "admin", "--name", "bench", "--json")
    url, log = f"http://127.0.0.1:{port}", directory / f"serve-{port}.log"
    with stores.running([*_COMMAND, "serve"], log, environment=environment, core=core) as process:
        stores.until(lambda: stores.answers(f"{url}/readyz"), process, log, _READY_SECONDS)
        yield url, json.loads(made)["key"]


@contextmanager
def worker(directory: Path, redis_url: str, database_url: str, *, core: int | None = None) -> Iterator[None]:
    """The write-behind and the sweeper of the caller's stores, until the block ends."""
    environment = {
        "FLASHHOLD_REDIS_URL": redis_url,
        "FLASHHOLD_DATABASE_URL": database_url,
        "FLASHHOLD_LOG_LEVEL": "warning",
    }
    log = directory / f"worker-{stores.free_port()}.log"
    with stores.running([*_COMMAND, "worker"], log, environment=environment, core=core) as process:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"The worker ended by itself:\n{log.read_text()[-2000:]}")


def _flashhold(verb: str, environment: dict[str, str], *words: str) -> str:
    """What a command says on standard output. Raises RuntimeError with what it says on the other, if it fails."""
    ran = subprocess.run(
        [*_COMMAND, verb, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if ran.returncode != 0:
        raise RuntimeError(f"flashhold {verb} ended with {ran.returncode}:\n{ran.stdout[-500:]}{ran.stderr[-2000:]}")
    return ran.stdout

"""A temporary FlashHold, started as an operator would: `flashhold up` on an empty directory and a free port."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from loadtests import stores

_READY_SECONDS = 90.0


class Server:
    """A running FlashHold and an admin's key to it."""

    durability = "Redis, fsync (level disk)"

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

    def audit(self) -> tuple[int, dict[str, Any]]:
        """Exit status and report of `flashhold audit`."""
        words = [*_COMMAND, "audit", "--data-dir", str(self.data), "--json"]
        ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        try:
            told: dict[str, Any] = json.loads(ran.stdout)
        except ValueError:
            told = {"error": ran.stderr[-2000:]}
        return ran.returncode, told


_COMMAND = (sys.executable, "-m", "flashhold.cli")


@contextmanager
def up(directory: Path, **settings: str) -> Iterator[Server]:
    """`flashhold up` with one API process until the block ends; `settings` are more FLASHHOLD_* variables."""
    data, port = directory / "data", stores.free_port()
    words = [*_COMMAND, "up", "--data-dir", str(data), "--port", str(port)]
    # One API process, as each baseline has one: designs are compared, not numbers of processes.
    environment = {"FLASHHOLD_PROCESSES": "1", **{name.upper(): value for name, value in settings.items()}}
    url, log = f"http://127.0.0.1:{port}", directory / "up.log"
    with stores.running(words, log, environment=environment) as process:
        stores.until(lambda: stores.answers(f"{url}/readyz"), process, log, _READY_SECONDS)
        server = Server(url, data)
        try:
            yield server
        finally:
            server.close()

"""A real API on real stores: one server a module, because starting one costs more than most tests do."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import redis
import uvicorn

from flashhold.embedded.servers import PostgresServer
from flashhold.http.serve import server_config
from flashhold.ledger.api_keys import new_key, register
from flashhold.settings import Settings
from tests.conftest import REDIS_BINARIES, _fresh_database, free_port


class Api:
    """One running HTTP process, a client that may do everything, and short words for what tests do most."""

    def __init__(self, url: str, settings: Settings, admin_key: str) -> None:
        self.url = url
        self.settings = settings
        self.admin_key = admin_key
        self.client = httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {admin_key}"}, timeout=30)

    async def post(self, path: str, body: Any = None, key: str | None = None, **more: Any) -> httpx.Response:
        """`key`: the idempotency key; "new" for one that nobody has used."""
        headers = {**more.pop("headers", {})}
        if key is not None:
            headers["Idempotency-Key"] = uuid.uuid4().hex if key == "new" else key
        content = {"json": body} if body is not None else {}
        return await self.client.post(path, headers=headers, **content, **more)

    async def stocked(self, units: int = 10, **policy: Any) -> str:
        """A new SKU with so many units on hand, and a policy if one is given."""
        sku = f"sku-{uuid.uuid4().hex[:12]}"
        if policy:
            (await self.client.put(f"/v1/skus/{sku}", json=policy)).raise_for_status()
        if units:
            body = {"type": "receipt", "sku": sku, "quantity": units}
            (await self.post("/v1/movements", body, key="new")).raise_for_status()
        return sku

    async def held(self, sku: str, quantity: int = 1, **more: Any) -> dict[str, Any]:
        """A new hold of one line."""
        body = {"lines": [{"sku": sku, "quantity": quantity}], **more}
        answer = await self.post("/v1/holds", body, key="new")
        answer.raise_for_status()
        hold: dict[str, Any] = answer.json()
        return hold

    async def stock(self, sku: str, pool: str = "default") -> dict[str, Any]:
        """A strong read."""
        answer = await self.client.get(f"/v1/skus/{sku}", params={"pool": pool})
        answer.raise_for_status()
        stock: dict[str, Any] = answer.json()
        return stock

    def key(self, *scopes: str) -> dict[str, str]:
        """The header of a new API key with these scopes."""
        token = new_key()
        register(self.settings.database_url, token, scopes)
        return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def running_api(
    redis_url: str, database_url: str, *, patience_seconds: float = 20, **settings: Any
) -> AsyncIterator[Api]:
    """Serve on a free port until the block ends. Raises TimeoutError with what is missing if it does not get ready."""
    admin_key = new_key()
    register(database_url, admin_key, ["admin"])
    chosen = Settings(redis_url=redis_url, database_url=database_url, port=0, **settings)
    server = uvicorn.Server(server_config(chosen))
    listening = socket.create_server(("127.0.0.1", 0))
    # Not `serve`: it would take the signals away from pytest.
    task = asyncio.create_task(server._serve([listening]))
    api = Api(f"http://127.0.0.1:{listening.getsockname()[1]}", chosen, admin_key)
    try:
        await _until_ready(api, patience_seconds)
        yield api
    finally:
        await api.client.aclose()
        server.should_exit = True
        await task


async def _until_ready(api: Api, patience_seconds: float) -> None:
    for _ in range(round(patience_seconds / 0.05)):
        try:
            if (await api.client.get("/readyz")).status_code == 200:
                return
        except httpx.ConnectError:
            pass
        await asyncio.sleep(0.05)
    raise TimeoutError((await api.client.get("/readyz")).text)


@contextmanager
def serving(processes: int = 1, *, expect: int = 200, **environ: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`flashhold serve` as its own processes; the parent and its URL, once readiness answers as expected.

    Where 200 is expected all of them must be ready: they share the port, and only one of them answers `/readyz`.
    """
    with tempfile.TemporaryDirectory(prefix="fh-serving-") as figures:
        yield from _serving(processes, expect, Path(figures), environ)


def _serving(
    processes: int, expect: int, figures: Path, environ: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    variables = {
        "FLASHHOLD_PORT": str(port),
        "FLASHHOLD_PROCESSES": str(processes),
        "PROMETHEUS_MULTIPROC_DIR": str(figures),
        **environ,
    }
    command = [sys.executable, "-c", "from flashhold.http.serve import serve; serve()"]
    parent = subprocess.Popen(command, env={**os.environ, **variables}, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    client = httpx.Client()
    try:
        for _ in range(600):
            try:
                if client.get(f"{url}/readyz").status_code == expect and (
                    expect != 200 or processes == 1 or _all_ready(client, url, figures, processes)
                ):
                    break
            except httpx.TransportError:
                assert parent.poll() is None, "serve ended"
            time.sleep(0.1)
        else:
            raise TimeoutError("serve did not get ready")
        yield parent, url
    finally:
        client.close()
        if parent.poll() is None:
            parent.send_signal(signal.SIGTERM)
        parent.wait(30)


def _all_ready(client: httpx.Client, url: str, figures: Path, processes: int) -> bool:
    """The gauge is the least of all processes that have made one; each keeps it in a file of its own."""
    if len(list(figures.glob("gauge_livemin_*.db"))) < processes:
        return False
    return "flashhold_ready 1.0" in client.get(f"{url}/metrics").text


def valkey(redis_servers: Callable[[str], str]) -> str:
    """The session's Valkey, emptied."""
    url = redis_servers(next(kind for kind in REDIS_BINARIES if kind.startswith("valkey")))
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture(scope="module")
def module_database_url(postgres: PostgresServer, migrated_template: str) -> Iterator[str]:
    """A fresh, migrated database for a module's tests."""
    yield from _fresh_database(postgres, migrated_template)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(redis_servers: Callable[[str], str], module_database_url: str) -> AsyncIterator[Api]:
    """One API for all tests of a module; each makes its own SKUs and keys."""
    async with running_api(valkey(redis_servers), module_database_url) as running:
        yield running

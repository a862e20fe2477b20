"""Real stores for the tests: one Valkey, one Redis where the machine has it, one Postgres, for the whole session.

All keep their files in a directory that is removed at the end, and die with this process however it ends.
"""

import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
import redis

from flashhold import Engine
from flashhold.embedded.binaries import RedisBinary, redis_binaries
from flashhold.embedded.child import Child
from flashhold.embedded.servers import PostgresServer, RedisServer
from flashhold.ledger import upgrade
from tests.ledger.journals import HandJournal

REDIS_BINARIES = {f"{binary.product}-{binary.version[0]}": binary for binary in redis_binaries()}
"""By the name that a test's parameter shows: `redis-7`, `valkey-9`."""


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Where the session's servers keep their files; short, because of the sockets in it."""
    directory = Path(tempfile.mkdtemp(prefix="fh-test-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(server: RedisServer | PostgresServer, log: Path) -> Iterator[Child]:
    """Run a server for the length of a `with` block."""
    server.prepare()
    child = Child(server, log=log)
    child.start(patience_s=60)
    try:
        yield child
    finally:
        child.stop(patience_s=10)


@pytest.fixture(scope="session")
def redis_servers(server_directory: Path) -> Iterator[Callable[[str], str]]:
    """Starts each kind of server when a test first asks for it; gives its URL."""
    stack: dict[str, tuple[Any, str]] = {}

    def url_of(kind: str) -> str:
        if kind not in stack:
            server = RedisServer(server_directory / kind, binary=REDIS_BINARIES[kind], port=free_port())
            block = running(server, server_directory / f"{kind}.log")
            block.__enter__()
            stack[kind] = (block, server.url)
        return stack[kind][1]

    yield url_of
    for block, _ in stack.values():
        block.__exit__(None, None, None)


def _emptied(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        client.flushall()
        client.script_flush()
        client.config_set("maxmemory", "0")
    return url


@pytest.fixture(params=list(REDIS_BINARIES))
def redis_url(request: pytest.FixtureRequest, redis_servers: Callable[[str], str]) -> str:
    """An empty server of every kind in turn, fsync before every answer."""
    return _emptied(redis_servers(request.param))


@pytest.fixture
def one_redis_url(redis_servers: Callable[[str], str]) -> str:
    """An empty Valkey only, for what does not depend on the kind of server."""
    return _emptied(redis_servers(next(kind for kind in REDIS_BINARIES if kind.startswith("valkey"))))


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., tuple[Child, str]]]:
    """Starts a server of the test's own, which it may kill: `start_redis(binary=…, settings={…})` → child, URL."""
    started: list[Child] = []

    def start(binary: RedisBinary | None = None, settings: dict[str, str] | None = None) -> tuple[Child, str]:
        directory = tmp_path / f"redis-{len(started)}"
        server = RedisServer(directory, binary=binary, port=free_port(), settings=settings)
        server.prepare()
        child = Child(server, log=tmp_path / f"redis-{len(started)}.log")
        child.start(patience_s=30)
        started.append(child)
        return child, server.url

    yield start
    for child in started:
        child.stop(patience_s=5)


@pytest.fixture(scope="session")
def postgres(server_directory: Path) -> Iterator[PostgresServer]:
    """The session's Postgres. Without fsync: no test cuts the power, and a fresh database a test costs many."""
    server = PostgresServer(server_directory / "postgres", settings={"fsync": "off"})
    with running(server, server_directory / "postgres.log"):
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres: PostgresServer) -> str:
    """The name of a database that has been migrated once, for the others to be copied from."""
    name = "flashhold_template"
    _execute(postgres, f'CREATE DATABASE "{name}"')
    upgrade(postgres.database_url(name))
    return name


_numbers = count(1)


@pytest.fixture
def empty_database_url(postgres: PostgresServer) -> Iterator[str]:
    """A fresh database without tables."""
    yield from _fresh_database(postgres, "template1")


@pytest.fixture
def database_url(postgres: PostgresServer, migrated_template: str) -> Iterator[str]:
    """A fresh database with the ledger's tables."""
    yield from _fresh_database(postgres, migrated_template)


def _fresh_database(postgres: PostgresServer, template: str) -> Iterator[str]:
    name = f"flashhold_{next(_numbers)}"
    _execute(postgres, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield postgres.database_url(name)
    _execute(postgres, f'DROP DATABASE "{name}" WITH (FORCE)')


def _execute(postgres: PostgresServer, statement: str) -> None:
    with psycopg.connect(postgres.database_url("postgres"), autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def journal(one_redis_url: str) -> Iterator[HandJournal]:
    """An empty hand-made journal."""
    made = HandJournal(one_redis_url)
    yield made
    made.close()


@pytest_asyncio.fixture
async def engine(redis_url: str) -> AsyncIterator[Any]:
    """An engine on an empty, installed partition."""
    async with await Engine.connect(redis_url) as connected:
        await connected.install()
        yield connected

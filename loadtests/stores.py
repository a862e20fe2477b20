"""Temporary stores and servers for one run: started on free ports in a temporary directory, ended with it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import psycopg

from flashhold.embedded import binaries, processes, servers

REPOSITORY = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0


class Redis(NamedTuple):
    """A running server. `durable`: every write is fsynced before its answer, else nothing is written down."""

    url: str
    port: int
    pid: int
    name: str
    durable: bool


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def redis_server(
    directory: Path, *, durable: bool, binary: binaries.RedisBinary | None = None, core: int | None = None
) -> Iterator[Redis]:
    """A Redis-compatible server, set up as `flashhold up` does it (`durable`) or writing nothing down; empty.

    It listens on a port, because `redis-benchmark` and its like know only ports.
    """
    home = _new_directory(directory, "redis")
    port = free_port()
    server = servers.RedisServer(home, binary=binary, port=port, settings={} if durable else {"appendonly": "no"})
    name = server.prepare()
    with running(server.command(), home / "log", core=core) as process:
        until(server.answers, process, home / "log")
        yield Redis(server.url, port, process.pid, name, durable)


@contextmanager
def postgres_server(directory: Path) -> Iterator[servers.PostgresServer]:
    """A Postgres, set up as `flashhold up` does it: fsync and `synchronous_commit` on."""
    home = _new_directory(directory, "postgres")
    server = servers.PostgresServer(home)
    server.prepare()
    with running(server.command(), home / "log", stop_signal=server.stop_signal) as process:
        until(server.answers, process, home / "log")
        yield server


def new_database(server: servers.PostgresServer, name: str) -> str:
    """An empty database; its URL."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f'create database "{name}"')
    return server.database_url(name)


def postgres_version(server: servers.PostgresServer) -> str:
    with psycopg.connect(server.url) as connection:
        version = connection.info.server_version
    return f"Postgres {version // 10000}.{version % 10000}"


@contextmanager
def web_app(app: str, directory: Path, environment: Mapping[str, str], *, core: int | None = None) -> Iterator[str]:
    """One uvicorn process with uvloop and httptools and no access log; yields its URL when it answers."""
    port = free_port()
    words = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)]
    words += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    words += ["--timeout-keep-alive", "65"]  # as FlashHold's: else idle buyers would find their connection closed
    log = _new_directory(directory, "web") / "log"
    with running(words, log, environment=environment, core=core) as process:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/healthz"), process, log)
        yield url


@contextmanager
def running(
    words: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    core: int | None = None,
    stop_signal: int = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the block ends; then ask it to end, and after 30 s make it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
            # However this run ends, its servers end.
            preexec_fn=processes.die_with_parent(stop_signal),  # noqa: PLW1509  it makes one system call
        )
    pin(process.pid, core)
    try:
        yield process
    finally:
        process.send_signal(stop_signal)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pin(pid: int, core: int | None) -> None:
    """Keep a process, with all its threads to come, on one core, where the system can do that."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        with suppress(ProcessLookupError):  # it ended already: whoever waits for it will say why
            os.sched_setaffinity(pid, {core})


def two_cores() -> tuple[int, int] | tuple[None, None]:
    """A core for the server under test and one for everything around it; none where there is only one."""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (mine[0], mine[1]) if len(mine) >= 2 else (None, None)


def answers(url: str) -> bool:
    """Whether a URL answers 200 now."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def _new_directory(below: Path, name: str) -> Path:
    number = 1
    while (below / f"{name}-{number}").exists():
        number += 1
    made = below / f"{name}-{number}"
    made.mkdir(parents=True)
    return made


def until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = _START_SECONDS
) -> None:
    """Wait for a process to be ready. Raises RuntimeError with the end of its log if it ends, or takes too long."""
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)

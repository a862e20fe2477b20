"""The two stores as `up` and the tests run them: settings, directories, sockets, readiness.

A server is described, not run, here (`child.py` runs it): `command()` is its whole command line and
`answers()` tells whether it serves. Both listen on a Unix socket in their own directory, which only the
user who runs them may enter: nobody else on the machine can connect, no port can be taken, and so neither
needs a password, which would have to lie in that same directory.
"""

import hashlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg
import redis

from flashhold.domain.errors import Misconfigured
from flashhold.embedded import processes
from flashhold.embedded.binaries import PostgresBinaries, RedisBinary, find_postgres, find_redis

DATABASE = "flashhold"

_SOCKET_PATH_MAX = 100
"""Bytes. The kernel's limit is 108 on Linux and 104 on macOS, final zero included."""

_REDIS_SETTINGS = {
    # Every write is on the disk before its answer leaves: what an acknowledgement at level `disk` promises.
    "appendonly": "yes",
    "appendfsync": "always",
    # `yes` would leave out the fsync while the file is rewritten, which is when it matters most.
    "no-appendfsync-on-rewrite": "no",
    # A command torn in half by a power cut was not yet acknowledged, because fsync comes first; so starting
    # without it loses nothing that was promised, and nobody has to repair a file by hand at night. Should
    # more than that be missing, the comparison with the ledger at start-up finds it and fails closed.
    "aof-load-truncated": "yes",
    # Rewritten when it has doubled, but not below this: at full speed 64 MB (the server's default) fill in seconds, and
    # a rewrite takes the server's core for as long. A GB is read again at a start in about ten seconds.
    "auto-aof-rewrite-percentage": "100",
    "auto-aof-rewrite-min-size": "1gb",
    # The append-only file is the data; snapshots beside it would only cost forks.
    "save": "",
    # At the memory limit refuse new holds rather than drop old ones.
    "maxmemory-policy": "noeviction",
    "protected-mode": "yes",
    "daemonize": "no",
}

_POSTGRES_SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",  # turning it off gained the write-behind 10 %, and would lose entries
    "shared_buffers": "256MB",  # the balances and index tips that every batch of the write-behind touches
    # A drop writes tens of MB/s; with the default of 1 GB it would run into checkpoint after checkpoint.
    # More than 2 GB would make the start after a crash take longer than people wait.
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "jit": "off",  # compiles for longer than these queries run
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class RedisServer:
    """A Redis-compatible server on `directory`. With `port` it listens on 127.0.0.1 instead of a Unix socket
    (for tools that know only ports); `settings` override the safe ones above."""

    name = "redis"
    stop_signal = signal.SIGTERM
    trouble = ""

    def __init__(
        self,
        directory: Path,
        *,
        binary: RedisBinary | None = None,
        port: int | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.port = port
        self._binary = binary
        self._settings = settings or {}

    @property
    def url(self) -> str:
        if self.port is not None:
            return f"redis://127.0.0.1:{self.port}/0"
        return f"unix://{quote(str(self._socket))}"

    @property
    def _socket(self) -> Path:
        return _socket_directory(self.directory, "redis.sock") / "redis.sock"

    def prepare(self) -> str:
        """Make the directory, choose the server that can read it; its name and version. Raises Misconfigured."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        made_by = self.directory / "made-by"
        if self._binary is None:
            # A Redis cannot read what a Valkey wrote, nor an older server what a newer one wrote; so a server
            # that appears on the PATH later must not take over this directory.
            known = made_by.read_text().split() if made_by.exists() else None
            self._binary = find_redis((known[0], tuple(map(int, known[1].split(".")))) if known else None)
        made_by.write_text(f"{self._binary.product} {'.'.join(map(str, self._binary.version))}\n")
        return str(self._binary)

    def command(self) -> list[str]:
        """The whole command line. Raises Misconfigured where it may run as nobody."""
        assert self._binary is not None, "prepare() comes first"
        if self.port is None:
            listen = {"port": "0", "unixsocket": str(self._socket), "unixsocketperm": "700"}
            _make_socket_directory(self._socket.parent, self.directory)
        else:
            listen = {"port": str(self.port), "bind": "127.0.0.1"}
        settings = {"dir": str(self.directory), **listen, **_REDIS_SETTINGS, **self._settings}
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return [*processes.unprivileged(self._binary.path, self.directory), str(self._binary.path), *words]

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment to run in."""
        return dict(environ)

    def answers(self) -> bool:
        """Whether it serves; one that is still loading does not."""
        client = redis.Redis.from_url(self.url, socket_timeout=2)
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError) as error:  # a loading server is a kind of ConnectionError
            self.trouble = str(error)
            return False
        finally:
            client.close()

    def leftovers(self) -> list[int]:
        """Pids of such servers that run on this directory, whoever started them."""
        return _running_in(self.directory, ("redis-server", "valkey-server"))


class PostgresServer:
    """Postgres on `directory` (its files are in `data` below), with a database named `flashhold`."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions and writes a checkpoint, does not wait for clients to leave
    trouble = ""

    def __init__(
        self, directory: Path, *, binaries: PostgresBinaries | None = None, settings: dict[str, str] | None = None
    ) -> None:
        self.directory = directory
        self._binaries = binaries
        self._settings = settings or {}

    @property
    def url(self) -> str:
        return self.database_url(DATABASE)

    def database_url(self, name: str) -> str:
        """The URL of one of this server's databases."""
        return f"postgresql://flashhold@/{quote(name)}?host={quote(str(self._socket_directory), safe='')}&port=5432"

    @property
    def _socket_directory(self) -> Path:
        return _socket_directory(self.directory, ".s.PGSQL.5432")

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def prepare(self) -> str:
        """Make the database cluster if there is none; the server's name and version. Raises Misconfigured."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        made_by = self._data / "PG_VERSION"
        if self._binaries is None:
            self._binaries = find_postgres(int(made_by.read_text()) if made_by.exists() else None)
        if not made_by.exists():
            self._initdb(self._binaries)
        return str(self._binaries)

    def _initdb(self, binaries: PostgresBinaries) -> None:
        """Beside its final place and renamed when complete, so that a crash cannot leave half a cluster."""
        unfinished = self.directory / "data.unfinished"
        _remove_tree(unfinished)
        initdb = binaries.directory / "initdb"
        words = ["--pgdata", str(unfinished), "--username=flashhold", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        # `C`: SKUs are compared byte by byte, and no change of the system's locale can corrupt an index.
        made = subprocess.run(
            [*processes.unprivileged(initdb, self.directory), str(initdb), *words, "--no-instructions"],
            cwd=self.directory, env=self.environ(os.environ), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode != 0:
            raise Misconfigured(f"initdb failed: {made.stderr.strip() or made.stdout.strip()}")
        unfinished.rename(self._data)

    def command(self) -> list[str]:
        """The whole command line. Raises Misconfigured where it may run as nobody."""
        assert self._binaries is not None, "prepare() comes first"
        _make_socket_directory(self._socket_directory, self.directory)
        settings = {
            "listen_addresses": "",
            "port": "5432",
            # A list in which a path may hold spaces and commas if it stands in double quotes.
            "unix_socket_directories": '"' + str(self._socket_directory).replace('"', '""') + '"',
            "unix_socket_permissions": "0700",
            **_POSTGRES_SETTINGS,
            **self._settings,
        }
        self._forget_dead_postmaster()
        binary = self._binaries.directory / "postgres"
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*processes.unprivileged(binary, self.directory), str(binary), "-D", str(self._data), *words]

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """`environ` without PGDATA, PGPORT and the like, which would point Postgres elsewhere."""
        return {name: value for name, value in environ.items() if not name.startswith("PG")}

    def _forget_dead_postmaster(self) -> None:
        """Remove the lock file of a postmaster that is gone: its pid may by now be another program's, and then
        Postgres would refuse to start for ever (usual after the restart of a container)."""
        lock = self._data / "postmaster.pid"
        if lock.exists() and processes.all_pids() and not self.leftovers():
            lock.unlink()

    def answers(self) -> bool:
        """Whether it serves and the database `flashhold` is there; makes the database at the first answer."""
        try:
            with psycopg.connect(self.database_url("postgres"), connect_timeout=2, autocommit=True) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
                if known is None:
                    connection.execute(f'CREATE DATABASE "{DATABASE}"')
                return True
        except psycopg.OperationalError as error:
            self.trouble = str(error).strip()
            return False

    def leftovers(self) -> list[int]:
        """Pids of the processes of such a server that run on this directory, whoever started them."""
        return _running_in(self._data, ("postgres",))


def _running_in(directory: Path, names: tuple[str, ...]) -> list[int]:
    """Servers stand in their data directory. The name keeps a shell that somebody left there out of it."""
    real = directory.resolve()
    return [
        pid
        for pid in processes.all_pids()
        if processes.working_directory(pid) == real
        and processes.alive(pid)
        and any(name in " ".join(processes.command_line(pid)[:1]) for name in names)
    ]


def _socket_directory(directory: Path, name: str) -> Path:
    """`directory`, or where its path is too long for a socket, or has a comma, which Postgres' clients take for
    the end of a host: a short private one derived from it."""
    if len(os.fsencode(directory / name)) <= _SOCKET_PATH_MAX and "," not in str(directory):
        return directory
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"flashhold-{os.geteuid()}-{digest}"


def _make_socket_directory(sockets: Path, directory: Path) -> None:
    """Where it is not the server's own directory: make it, or check that nobody else has. Raises Misconfigured."""
    if sockets == directory:
        return
    sockets.mkdir(mode=0o700, exist_ok=True)
    found = sockets.lstat()
    if sockets.is_symlink() or found.st_uid not in (os.geteuid(), directory.stat().st_uid):
        raise Misconfigured(f"{sockets} belongs to somebody else; choose a shorter --data-dir.")
    sockets.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(sockets, directory.stat().st_uid, directory.stat().st_gid)


def _remove_tree(directory: Path) -> None:
    for folder, folders, files in os.walk(directory, topdown=False):
        for name in files:
            (Path(folder) / name).unlink()
        for name in folders:
            (Path(folder) / name).rmdir()
    if directory.exists():
        directory.rmdir()

"""A running deployment to torment: stores, API and worker, each a process that is started again when it dies.

Two kinds. `UpStack` is the product's own `flashhold up`. `OwnStack` runs the same parts with the product's own `Child`,
but starts a dead one at once instead of after a growing pause, can keep one away, and lets a proxy stand before a
store; with it a hundred deaths take minutes and not an hour. Pid files are in `<data_dir>/run/` in both.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from flashhold.cli.first_start import prepare_stores
from flashhold.domain.errors import FlashHoldError
from flashhold.embedded import processes
from flashhold.embedded.binaries import RedisBinary
from flashhold.embedded.child import Child
from flashhold.embedded.roles import Api, Role, Worker
from flashhold.embedded.servers import PostgresServer, RedisServer
from flashhold.engine.address import blocking_client
from flashhold.engine.keys import FIRST_PARTITION
from tests.conftest import free_port
from tests.embedded.running_up import RunningUp

START_PATIENCE_S = 60.0
_KEEPER_PAUSE_S = 0.02

Server = RedisServer | PostgresServer


class Stack:
    """What all deployments have. `url`: of the API, past any proxy."""

    partitions: tuple[str, ...] = (FIRST_PARTITION,)

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.url = ""
        self.redis = RedisServer(data_dir / "redis")
        self.postgres = PostgresServer(data_dir / "postgres")

    @property
    def redis_url(self) -> str:
        """The Redis itself, past any proxy."""
        return self.redis.url

    def client(self, partition: str, timeout_s: float = 10.0) -> "redis.Redis":
        """A plain client of the store that has the partition."""
        return blocking_client(self.redis_url, partition, timeout_s=timeout_s)

    @property
    def database_url(self) -> str:
        """The database itself, past any proxy."""
        return self.postgres.url

    @property
    def admin_key(self) -> str:
        return (self.data_dir / "admin.key").read_text().strip()

    def pid(self, role: str) -> int | None:
        """What the role's pid file says; None while there is none."""
        try:
            return int((self.data_dir / "run" / f"{role}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def http_pids(self) -> list[int]:
        """The API's parent and all its HTTP processes."""
        return Api(self.data_dir, "127.0.0.1", 0).leftovers()

    def server(self, role: str) -> Server:
        """The store of that name."""
        return self.redis if role == "redis" else self.postgres

    async def back(self, role: str, dead_pid: int, patience_s: float = START_PATIENCE_S) -> float:
        """Wait until another process than `dead_pid` plays the role, and answers if it is a store; the instant
        (`time.monotonic`). Raises TimeoutError."""
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            pid = self.pid(role)
            if pid is not None and pid != dead_pid and processes.alive(pid):
                if role not in ("redis", "postgres"):
                    return time.monotonic()
                if await asyncio.to_thread(self.server(role).answers):
                    return time.monotonic()
            await asyncio.sleep(0.01)
        raise TimeoutError(f"{role} did not come back within {patience_s:g} s")

    def command(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Exit status and JSON report of a `flashhold` command on this deployment's stores."""
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "flashhold", *words, "--data-dir", str(self.data_dir), "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
            env={**_clean_environment(), **self.commands_environ()},
        )
        try:
            return ran.returncode, json.loads(ran.stdout)
        except ValueError:
            return ran.returncode, {"error": ran.stderr[-2000:]}

    def commands_environ(self) -> dict[str, str]:
        """What commands are told besides the data directory."""
        return {}

    def start(self) -> None:
        """Returns when it is ready."""
        raise NotImplementedError

    def stop(self) -> None:
        """End everything; only what this object started."""
        raise NotImplementedError


class UpStack(Stack):
    """`flashhold up` on an empty directory."""

    def __init__(self, data_dir: Path, environ: dict[str, str] | None = None) -> None:
        super().__init__(data_dir)
        self._up = RunningUp(data_dir, environ)

    def start(self) -> None:
        """Returns when it is ready."""
        self._up.start()
        self.url = self._up.url
        # The servers that `up` chose to run; needed here to ask whether they answer.
        self.redis.prepare()
        self.postgres.prepare()

    def stop(self) -> None:
        if self._up.process is not None and self._up.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._up.stop()
        self._up.kill_everything()


class OwnStack(Stack):
    """The same parts without the supervisor's pauses.

    `redis_proxy` and `database_proxy` turn a store's URL into the one that API and workers get; they are called once
    both stores answer. `workers`: how many run at once.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        environ: dict[str, str] | None = None,
        redis_settings: dict[str, str] | None = None,
        binary: RedisBinary | None = None,
        redis_proxy: Callable[[str], str] = str,
        database_proxy: Callable[[str], str] = str,
        workers: int = 1,
    ) -> None:
        super().__init__(data_dir)
        self.redis = RedisServer(data_dir / "redis", binary=binary, settings=redis_settings)
        self._environ = {**_clean_environment(), "FLASHHOLD_LOG_LEVEL": "warning", **(environ or {})}
        self._proxies = redis_proxy, database_proxy
        self._workers = workers
        self._children: dict[str, Child] = {}
        self._away: set[str] = set()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        """Returns when the API is ready. Raises StartFailed, TimeoutError; then nothing is left running."""
        for name in ("run", "log"):
            (self.data_dir / name).mkdir(parents=True, exist_ok=True)
        try:
            self._start_stores()
            prepare_stores(self.redis_url, self.database_url, self.data_dir / "admin.key")
            port = free_port()
            api = Api(self.data_dir, "127.0.0.1", port)
            workers = [Worker(self.data_dir)]
            # By another name, or the second would be taken for a leftover of the first.
            workers += [Role(f"worker{n}", "worker", self.data_dir) for n in range(2, self._workers + 1)]  # type: ignore[misc]
            environ = {
                **self._environ,
                "FLASHHOLD_REDIS_URL": self._proxies[0](self.redis_url),
                "FLASHHOLD_DATABASE_URL": self._proxies[1](self.database_url),
                "FLASHHOLD_DATA_DIR": str(self.data_dir),
                "FLASHHOLD_HOST": "127.0.0.1",
                "FLASHHOLD_PORT": str(port),
            }
            for role in (api, *workers):
                self._child(role, environ).spawn()
            self.url = api.url
            self._keeper.start()
            if not processes.wait_until(api.ready, START_PATIENCE_S, 0.05):
                raise TimeoutError(f"The API is not ready: {api.trouble} {self._children['api'].last_words()}")
        except BaseException:
            self.stop()
            raise

    def _start_stores(self) -> None:
        for server in (self.redis, self.postgres):
            self._start_server(server)

    def _start_server(self, server: Server) -> None:
        server.prepare()
        self._child(server, self._environ).start(START_PATIENCE_S)

    def _child(self, what: Server | Role, environ: dict[str, str]) -> Child:
        child = Child(
            what,
            log=self.data_dir / "log" / f"{what.name}.log",
            pid_file=self.data_dir / "run" / f"{what.name}.pid",
            environ=environ,
        )
        self._children[what.name] = child
        return child

    @contextmanager
    def away(self, role: str) -> Iterator[None]:
        """A role that dies within this block is started again only at its end."""
        self._away.add(role)
        try:
            yield
        finally:
            self._away.discard(role)

    def stop(self) -> None:
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join()
        names = [name for name in self._children if name not in ("redis", "postgres")] + ["redis", "postgres"]
        for name in names:
            if name in self._children:
                pid = self._children[name].pid
                if pid is not None:
                    processes.send(pid, signal.SIGCONT)
                self._children[name].stop(5.0)

    def _keep(self) -> None:
        while not self._stopping.wait(_KEEPER_PAUSE_S):
            for name, child in list(self._children.items()):
                if child.ended() is None or name in self._away:
                    continue
                try:
                    child.forget()
                    child.spawn()
                except FlashHoldError as error:
                    with (self.data_dir / "log" / "keeper.log").open("a") as log:
                        log.write(f"{name} could not be started: {error}\n")


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FLASHHOLD_")}

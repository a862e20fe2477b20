"""`flashhold up`: everything on one machine, started in order, kept running, stopped in order.

One loop in one thread owns all children. The lock on the data directory, not a pid file, decides who may run:
the kernel lets it go with the process, however that ends.
"""

import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from flashhold.domain.errors import FlashHoldError
from flashhold.embedded import processes
from flashhold.embedded.child import Child, StartFailed, describe, write_atomically
from flashhold.embedded.roles import Api, Role, Worker
from flashhold.embedded.servers import PostgresServer, RedisServer

STORE_START_PATIENCE_S = 300.0
"""Replaying a large append-only file or write-ahead log takes minutes; giving up on it would help nobody."""

API_START_PATIENCE_S = 60.0
NOT_READY_PATIENCE_S = 5.0
"""An API that answers but is not ready so long after the start is waiting for somebody to read why."""

STOP_PATIENCE_S = {"api": 13.0, "worker": 7.0, "redis": 6.0, "postgres": 6.0}
"""Seconds for each to finish by itself. In the order of stopping, and with both stores at the same time, 26 in all:
within the 30 that are promised."""

_TICK_S = 0.1
_BACKOFF_MAX_S = 30.0
_GOOD_LIFE_S = 20.0
"""Who has run this long starts again at once after a death; who keeps dying waits 0.5 s, 1 s, 2 s, … up to 30 s."""


class Refused(FlashHoldError):
    """`flashhold up` cannot start here; the message says why and what to do."""


class _StopRequested(BaseException):
    """A signal came during the start; not an Exception, so that nothing on the way takes it for a failure."""


@dataclass(frozen=True)
class Stores:
    """Where the two stores are, and what they are in words."""

    redis_url: str
    database_url: str
    description: str


@dataclass
class _Watched:
    child: Child
    started_at: float = 0.0
    failures: int = 0
    restart_at: float | None = None
    announce: bool = False
    """It was started again, and the line that says so is still owed."""


@dataclass
class Up:
    """One run of `flashhold up`. `environ` is what the processes get beside the stores' URLs; `prepare` is called
    once both stores answer (migration, first key); `say` takes one line; `welcome` gives the lines after `ready`."""

    data_dir: Path
    host: str
    port: int
    environ: Mapping[str, str]
    prepare: Callable[[Stores], None]
    say: Callable[[str], None]
    welcome: Callable[[str, Stores], list[str]]
    _watched: dict[str, _Watched] = field(default_factory=dict)
    _starting: bool = True
    _stop_signal: int | None = None

    def run(self) -> None:
        """Start, watch until SIGINT, SIGTERM or SIGHUP, stop. Raises Refused, StartFailed, Misconfigured
        or what `prepare` raises, and then leaves nothing running."""
        self.data_dir = self.data_dir.absolute()
        try:
            for directory in (self.data_dir, self.data_dir / "run", self.data_dir / "log"):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(
                f"Cannot keep data in {self.data_dir}: {error.strerror}. Choose another --data-dir."
            ) from error
        with locked(self.data_dir), self._signals():
            try:
                stores, api = self._start()
                self._starting = False
                self._watch(stores, api)
            except _StopRequested:
                self.say("Stopping before the start was complete.")
            finally:
                self._starting = False
                self._stop()
        self.say(f"Stopped. All data is kept in {self.data_dir}")

    # --- start ---------------------------------------------------------------------------------------------------

    def _start(self) -> tuple[Stores, Api]:
        redis, postgres = RedisServer(self.data_dir / "redis"), PostgresServer(self.data_dir / "postgres")
        self._end_orphans([Api(self.data_dir, self.host, self.port), Worker(self.data_dir), redis, postgres])
        self.port = free_or_refused(self.host, self.port)
        stores = self._start_stores(redis, postgres)
        environ = {
            # Shorter than our own patience, so that the API is never killed while it answers.
            "FLASHHOLD_SHUTDOWN_SECONDS": str(int(STOP_PATIENCE_S["api"]) - 3),
            **self.environ,
            "FLASHHOLD_REDIS_URL": stores.redis_url,
            "FLASHHOLD_DATABASE_URL": stores.database_url,
            "FLASHHOLD_DATA_DIR": str(self.data_dir),
            "FLASHHOLD_HOST": self.host,
            "FLASHHOLD_PORT": str(self.port),
        }
        api = Api(self.data_dir, self.host, self.port)
        ours = [self._add(role, environ) for role in (Worker(self.data_dir), api)]
        for child in ours:
            child.spawn()
        self.prepare(stores)  # meanwhile both load their modules; until the tables are there they wait
        self._until_answering(api, ours)
        return stores, api

    def _until_answering(self, api: Api, ours: list[Child]) -> None:
        """Whoever ends before the API has answered once would end again and again."""
        processes.wait_until(
            lambda: api.answers() or any(child.ended() is not None for child in ours), API_START_PATIENCE_S, 0.05
        )
        for child in ours:
            if (status := child.ended()) is not None:
                raise StartFailed(f"{child.what.name} ended at once ({describe(status)}). {child.last_words()}")
        if not api.answers():
            raise StartFailed(f"The API did not start. {api.trouble}")

    def _end_orphans(self, roles: list[Role | RedisServer | PostgresServer]) -> None:
        """What a killed `up` left running would hold the port and the data directories."""
        for role in roles:
            (self.data_dir / "run" / f"{role.name}.pid").unlink(missing_ok=True)
            if ended := self._child(role, {}).clear_leftovers(STOP_PATIENCE_S[role.name]):
                self.say(
                    f"{role.name}: ended what an earlier start had left running (pid {', '.join(map(str, ended))})"
                )

    def _start_stores(self, redis: RedisServer, postgres: PostgresServer) -> Stores:
        urls, words = {}, []
        for server, variable in ((redis, "FLASHHOLD_REDIS_URL"), (postgres, "FLASHHOLD_DATABASE_URL")):
            url = self.environ.get(variable)
            if url:
                words.append(f"{server.name} from {variable}")
            else:
                words.append(server.prepare())
                self._add(server, self.environ).start(STORE_START_PATIENCE_S)
            urls[server.name] = url or server.url
        return Stores(urls["redis"], urls["postgres"], " and ".join(words))

    def _child(self, what: Role | RedisServer | PostgresServer, environ: Mapping[str, str]) -> Child:
        return Child(
            what,
            log=self.data_dir / "log" / f"{what.name}.log",
            pid_file=self.data_dir / "run" / f"{what.name}.pid",
            environ=environ,
        )

    def _add(self, what: Role | RedisServer | PostgresServer, environ: Mapping[str, str]) -> Child:
        """A child that is watched, and stopped at the end, from here on."""
        child = self._child(what, environ)
        self._watched[what.name] = _Watched(child, time.monotonic())
        return child

    # --- watch ---------------------------------------------------------------------------------------------------

    def _watch(self, stores: Stores, api: Api) -> None:
        ready, said, look_at = False, "", time.monotonic() + NOT_READY_PATIENCE_S
        while self._stop_signal is None:
            if not ready and self._watched["api"].restart_at is None:
                ready = api.ready()
                if ready:
                    for line in self.welcome(api.url, stores):
                        self.say(line)
                elif api.trouble != said and time.monotonic() > look_at:
                    said = api.trouble
                    self.say(f"Running, but not ready: {said}")
            for name, watched in self._watched.items():
                self._look_after(name, watched)
            time.sleep(_TICK_S)

    def _look_after(self, name: str, watched: _Watched) -> None:
        now = time.monotonic()
        if watched.restart_at is None:
            status = watched.child.ended()
            if status is None:
                if watched.announce and watched.child.what.answers():
                    watched.announce = False
                    self.say(f"{name} runs again (pid {watched.child.pid})")
                return
            watched.child.forget()
            self._plan_restart(name, watched, f"ended ({describe(status)})")
        elif now >= watched.restart_at:
            try:
                watched.child.spawn()
            except FlashHoldError as error:
                self._plan_restart(name, watched, f"could not be started ({error})")
                return
            watched.restart_at, watched.started_at, watched.announce = None, now, True

    def _plan_restart(self, name: str, watched: _Watched, what_happened: str) -> None:
        now = time.monotonic()
        watched.failures = 0 if now - watched.started_at > _GOOD_LIFE_S else watched.failures + 1
        delay = min(_BACKOFF_MAX_S, 0.25 * 2**watched.failures) if watched.failures else 0.0
        watched.restart_at = now + delay
        self.say(f"{name} {what_happened}; it is started again {f'in {delay:g} s' if delay else 'at once'}")

    # --- stop ----------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """The door first, then who drains the journal, then the stores: each still finds what it needs to finish."""
        for names in (("api",), ("worker",), ("redis", "postgres")):
            here = [self._watched[name].child for name in names if name in self._watched]
            for child in here:
                child.ask_to_stop()
            for child in here:
                if not child.stop(STOP_PATIENCE_S[child.what.name]):
                    self.say(f"{child.what.name} did not stop by itself and was killed; nothing acknowledged is lost")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def requested(signum: int, _frame: FrameType | None) -> None:
            self._stop_signal = signum
            if self._starting:
                self._starting = False
                raise _StopRequested

        heeded = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup flashhold up` is to outlive its terminal
            heeded.append(signal.SIGHUP)
        before = {signum: signal.signal(signum, requested) for signum in heeded}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this process, with `run/up.pid` naming it. Raises Refused, with the holder's pid."""
    pid_file = data_dir / "run" / "up.pid"
    with (data_dir / "run" / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Refused(f"{data_dir} is in use by another `flashhold up` (pid {lock.read().strip()})") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        write_atomically(pid_file, f"{os.getpid()}\n")
        try:
            yield
        finally:
            pid_file.unlink(missing_ok=True)


def free_or_refused(host: str, port: int) -> int:
    """The port if it can be listened on, for 0 one that can. Raises Refused."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)  # another that listens with SO_REUSEPORT is noticed only here
            return int(listener.getsockname()[1])
    except OSError as error:
        why = f"Cannot listen on {host} port {port}: {error.strerror or error}."
        raise Refused(f"{why} Another program may have it; choose --port.") from error

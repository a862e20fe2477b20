"""`flashhold serve`: a parent that keeps N HTTP processes alive on one socket, and replaces them on SIGHUP."""

import atexit
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from flashhold import telemetry, wiring
from flashhold.domain.errors import Misconfigured
from flashhold.http.hot import HotProtocol
from flashhold.settings import Settings

_log = telemetry.logger(__name__)

BACKLOG = 2048
"""Connections that may wait to be accepted: a crowd arrives within one second."""
SUCCESSOR_SECONDS = 30
"""What a new process may take to start on a busy machine before it is given up and its predecessor stays."""


def serve() -> None:
    """`run` with the settings of the environment."""
    run(wiring.read_settings())


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let requests in flight finish. Raises Misconfigured where the port is taken.

    The parent holds the socket and restarts a child that dies or hangs; the children share the socket, so no connection
    is refused while one of them is away. SIGHUP replaces them one by one: each ends only when its successor, which
    loads the program anew, takes requests. If the successor does not, the old ones stay.
    """
    telemetry.configure_logging(settings.log_level, settings.log_format)
    listening = _listen(settings)
    _share_metrics()
    Parent(server_config(settings), sockets=[listening]).run()


class Parent(Multiprocess):
    """uvicorn's, which obeys SIGTERM also while it replaces its children."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, lambda *_: self.should_exit.set())

    def restart_all(self) -> None:
        patience, self.config.timeout_worker_healthcheck = self.config.timeout_worker_healthcheck, SUCCESSOR_SECONDS
        before = self.processes.copy()
        try:
            super().restart_all()
        finally:
            self.config.timeout_worker_healthcheck = patience
        kept = [process.pid for process in before if process in self.processes]
        _log.info("http-processes-replaced", pids=[process.pid for process in self.processes], kept=kept)


def server_config(settings: Settings) -> uvicorn.Config:
    """uvicorn's settings for one HTTP process. All of it can be pickled, because children are spawned, not forked."""
    protocol: Any = partial(HotProtocol, settings)
    return uvicorn.Config(
        partial(_application, settings),
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.processes,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


def _application(settings: Settings) -> Any:
    """The application, in the child."""
    from flashhold.http.app import create_app  # noqa: PLC0415  the parent needs none of it

    telemetry.configure_logging(settings.log_level, settings.log_format)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return create_app(settings)


def _end_with_parent() -> None:
    """A parent that was killed leaves nobody to restart or stop us, and its successor needs the port."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _listen(settings: Settings) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        raise Misconfigured(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}") from error
    listening.set_inheritable(True)
    return listening


def _share_metrics() -> None:
    """A directory in which the children keep their figures together: one that ends with us, unless another is set."""
    named = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if named:
        Path(named).mkdir(parents=True, exist_ok=True)
        return
    directory = tempfile.mkdtemp(prefix="flashhold-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
    atexit.register(shutil.rmtree, directory, ignore_errors=True)

"""FlashHold's own processes as `up` runs them: `flashhold serve` and `flashhold worker`."""

import http.client
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from flashhold.embedded import processes

_MARK = "FLASHHOLD_UP_ROLE"
"""In the environment of a role and so of all its children: by this a later start knows them as its own."""


class Role:
    """One `flashhold <verb>` process on a data directory."""

    stop_signal = signal.SIGTERM

    def __init__(self, name: str, verb: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.trouble = ""
        self._verb = verb

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """`environ` with what makes the process recognisable."""
        return {**environ, _MARK: self._mark}

    @property
    def _mark(self) -> str:
        return f"{self.name}:{self.directory.resolve()}"

    def command(self) -> list[str]:
        # `-P`: the working directory holds folders named like packages, and must not be searched for modules.
        return [sys.executable, "-P", "-m", "flashhold", self._verb]

    def answers(self) -> bool:
        """A role without a port is taken to serve as soon as it runs."""
        return True

    def leftovers(self) -> list[int]:
        """Pids of this role's processes on this directory, whoever started them, children included."""
        mark = os.fsencode(f"{_MARK}={self._mark}")
        return [
            pid
            for pid in processes.all_pids()
            if pid != os.getpid() and mark in processes.environment(pid) and processes.alive(pid)
        ]


class Worker(Role):
    """The write-behind and the sweeper."""

    def __init__(self, directory: Path) -> None:
        super().__init__("worker", "worker", directory)


class Api(Role):
    """The HTTP processes; `host` and `port` are where they listen."""

    def __init__(self, directory: Path, host: str, port: int) -> None:
        super().__init__("api", "serve", directory)
        self.host = host
        self.port = port

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def answers(self) -> bool:
        """Whether it takes requests at all; `ready` tells whether it will also decide them."""
        return self._get("/healthz") == 200

    def ready(self) -> bool:
        """Whether it takes orders; if not, `trouble` says why."""
        return self._get("/readyz") == 200

    def _get(self, path: str) -> int:
        self.trouble = ""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=3)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.trouble = f"{self.url} does not answer ({error})"
            return 0
        finally:
            connection.close()
        if response.status != 200:
            self.trouble = _in_words(body)
        return response.status


def _in_words(body: bytes) -> str:
    """What a not-ready answer says: its `detail` where it is a problem document, else all of it, shortened."""
    try:
        said = json.loads(body)
    except ValueError:
        return body[:200].decode(errors="replace")
    return str(said.get("detail") or said) if isinstance(said, dict) else str(said)

"""Run one server or role as a child process: start it, know its pid, end it, and clear away what a crash left."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from flashhold.domain.errors import FlashHoldError
from flashhold.embedded import processes

_LOG_BYTES_MAX = 50_000_000
"""A log beyond this is put aside at the next start, so that at most two such files exist a role."""

_STARTS_MAX = 5


class Startable(Protocol):
    """What a `Child` runs."""

    name: str
    directory: Path
    stop_signal: signal.Signals
    trouble: str
    """Why it did not answer, in words, as far as that is known."""

    def command(self) -> list[str]: ...

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]: ...

    def answers(self) -> bool: ...

    def leftovers(self) -> list[int]: ...


class StartFailed(FlashHoldError):
    """A server did not start."""


class Child:
    """A child process with its log and pid file. Not thread-safe; one owner starts, watches and ends it."""

    def __init__(
        self,
        what: Startable,
        *,
        log: Path,
        pid_file: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.what = what
        self.log = log
        self._pid_file = pid_file
        self._environ = what.environ(os.environ if environ is None else environ)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def spawn(self) -> None:
        """Start it and return at once. Whatever still runs of an earlier one is ended first: two on the same
        directory or port would be worse than any delay. Raises Misconfigured or StartFailed."""
        self.clear_leftovers(patience_s=10.0)
        command = self.what.command()
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        try:
            with self.log.open("ab") as log:
                # A session of its own: Ctrl-C in the terminal must reach only the one who knows the order of ending.
                self._process = subprocess.Popen(
                    command,
                    cwd=self.what.directory,
                    env=self._environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=processes.die_with_parent(self.what.stop_signal),  # noqa: PLW1509  (it makes one system call)
                )
        except OSError as error:
            raise StartFailed(f"{self.what.name} could not be started: {error}") from error
        if self._pid_file:
            write_atomically(self._pid_file, f"{self._process.pid}\n")

    def start(self, patience_s: float) -> None:
        """Start it and wait until it answers. Raises StartFailed, with the log's last lines, and leaves nothing behind.

        An early death is tried again a few times: right after a crash the old Postgres' last processes may
        still be holding its shared memory.
        """
        for attempt in range(_STARTS_MAX):
            time.sleep(0.5 if attempt else 0)
            self.spawn()
            if not processes.wait_until(lambda: self.ended() is not None or self.what.answers(), patience_s, 0.05):
                self.stop(5.0)
                raise StartFailed(
                    f"{self.what.name} did not answer within {patience_s:g} s. {self.what.trouble} {self.last_words()}"
                )
            status = self.ended()
            if status is None:
                return
        self.forget()
        raise StartFailed(f"{self.what.name} ended at once ({describe(status or 0)}). {self.last_words()}")

    def ended(self) -> int | None:
        """None while it runs, else its exit status (negative: the signal)."""
        return self._process.poll() if self._process else None

    def ask_to_stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(self.what.stop_signal)

    def stop(self, patience_s: float) -> bool:
        """Ask it to end, then make it. True if it went by itself within `patience_s`."""
        by_itself = True
        if self._process:
            self.ask_to_stop()
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                by_itself = False
                self._process.kill()
                self._process.wait()
        self.clear_leftovers(patience_s=1.0)
        self.forget()
        return by_itself

    def forget(self) -> None:
        """It has ended and is not coming back: no pid file must name a pid that will be somebody else's."""
        self._process = None
        if self._pid_file:
            self._pid_file.unlink(missing_ok=True)

    def clear_leftovers(self, patience_s: float) -> list[int]:
        """End what runs of an earlier start (orphans of a crash, children of a killed parent); their pids."""
        left = [pid for pid in self.what.leftovers() if pid != self.pid]
        if left:
            # Postgres' own children end with the first of them; give all the same time rather than each its own.
            for pid in left:
                processes.send(pid, self.what.stop_signal)
            if not processes.wait_until(lambda: not any(map(processes.alive, left)), patience_s):
                for pid in left:
                    processes.end(pid, signal.SIGKILL, 5.0)
        return left

    def last_words(self) -> str:
        """The end of its log, for an error message."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 1500))
            return f"The end of {self.log}:\n" + "\n".join(log.read().decode(errors="replace").splitlines()[-8:])


def describe(status: int) -> str:
    """An exit status in words."""
    return f"signal {-status}" if status < 0 else f"status {status}"


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a small file so that a reader, or a crash, sees the old text or the new, never a part."""
    unfinished = path.with_name(path.name + ".unfinished")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)

"""Drives a real `flashhold up` from outside, as an operator does: its output, its files, its signals, its port."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from flashhold.embedded import processes

READY = re.compile(r"FlashHold is ready at (http://\S+)")
ROLES = ("redis", "postgres", "api", "worker")
PATIENCE_S = 60.0


class RunningUp:
    """One `flashhold up` process on `data_dir`. `start` waits for the ready line."""

    def __init__(self, data_dir: Path, environ: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("FLASHHOLD_")} | (environ or {})
        self._out = data_dir.with_name(data_dir.name + ".out")
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def spawn(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start it and return at once."""
        with self._out.open("wb") as out:
            command = [sys.executable, "-m", "flashhold", "up", "--port", "0", "--data-dir", str(self.data_dir), *words]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=self._environ, cwd="/")
        return self.process

    def start(self, *words: str) -> None:
        """Start it and wait until it says that it is ready."""
        process = self.spawn(*words)
        assert processes.wait_until(lambda: process.poll() is not None or bool(READY.search(self.output())), PATIENCE_S)
        found = READY.search(self.output())
        assert found, self.output()
        self.url = found[1]

    def output(self) -> str:
        """Everything it has said until now."""
        return self._out.read_text()

    def says(self, text: str) -> bool:
        """Whether it says this within the patience."""
        return processes.wait_until(lambda: text in self.output(), PATIENCE_S)

    def pid(self, role: str) -> int:
        """What the role's pid file says, once there is one."""
        path = self.data_dir / "run" / f"{role}.pid"
        assert processes.wait_until(path.exists, PATIENCE_S), f"no {path}"
        return int(path.read_text())

    def pids(self) -> dict[str, int]:
        """All roles' pids, `up` included."""
        return {role: self.pid(role) for role in ("up", *ROLES)}

    def family(self) -> list[int]:
        """Every process that runs for this data directory, found without its own bookkeeping."""
        mark = os.fsencode(str(self.data_dir))
        return [
            pid
            for pid in processes.all_pids()
            if pid != os.getpid()
            and processes.alive(pid)
            and (
                any(mark in words for words in processes.environment(pid))
                or str(processes.working_directory(pid) or "").startswith(str(self.data_dir))
            )
        ]

    def request(
        self, method: str, path: str, body: object = None, key: str | None = None, patience_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """One request with the admin key, tried again while a process is away, as the contract tells clients to."""
        headers = {
            "Authorization": f"Bearer {(self.data_dir / 'admin.key').read_text().strip()}",
            "Content-Type": "application/json",
            **({"Idempotency-Key": key} if key else {}),
        }
        data = None if body is None else json.dumps(body).encode()
        deadline = time.monotonic() + patience_s
        while True:
            try:
                asked = urllib.request.Request(self.url + path, data, headers, method=method)
                with urllib.request.urlopen(asked, timeout=10) as answer:
                    return dict(json.load(answer))
            except OSError as error:
                if time.monotonic() > deadline or getattr(error, "code", 503) != 503:
                    raise
            time.sleep(0.1)

    def on_hand(self, sku: str) -> int:
        return int(self.request("GET", f"/v1/skus/{sku}")["on_hand"])

    def receive(self, sku: str, quantity: int, key: str) -> None:
        self.request("POST", "/v1/movements", {"type": "receipt", "sku": sku, "quantity": quantity}, key)

    def stop(self, signum: int = signal.SIGTERM) -> tuple[int, float]:
        """Signal it; its exit status, and how long it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signum)
        return self.process.wait(40), time.monotonic() - began

    def kill_everything(self) -> None:
        """SIGKILL to `up` and to everything that runs for it."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.family():
            processes.end(pid, signal.SIGKILL, 5.0)

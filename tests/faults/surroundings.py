"""What stands around Redis goes wrong: its disk is full, its clock jumps."""

import asyncio
import os
import shutil
import struct
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from flashhold.embedded import processes
from flashhold.embedded.child import Child
from tests.faults import injectors
from tests.faults.injectors import Broken, Skipped
from tests.faults.stack import OwnStack, Role, Server
from tests.faults.trial import Scenario, Setting, Trial

_SHIM = Path(__file__).with_name("clock_shim.c")
_DISK_MB = 64
_CLOCK_SLACK_MS = 50
"""Between two readings of two clocks that are the same one."""


class SmallDiskStack(OwnStack):
    """Redis keeps its files on a small disk of its own, a tmpfs. Only root may mount one: Skipped elsewhere."""

    def start(self) -> None:
        if os.geteuid() != 0 or shutil.which("mount") is None:
            raise Skipped("only root may mount a small disk")
        self.redis.directory.mkdir(parents=True)
        options = f"size={_DISK_MB}m,mode=700"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(self.redis.directory)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if mounted.returncode != 0:
            raise Skipped(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
        super().start()

    def stop(self) -> None:
        super().stop()
        if self.redis.directory.is_mount():
            subprocess.run(["umount", "--lazy", str(self.redis.directory)], check=False)

    @property
    def ballast(self) -> Path:
        """What fills the disk."""
        return self.redis.directory / "ballast"

    def fill(self, room_bytes: int) -> None:
        """Leave only so much."""
        free = shutil.disk_usage(self.redis.directory).free
        with self.ballast.open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(1, free - room_bytes))


class MovedClockStack(OwnStack):
    """Redis' wall clock can be moved; everybody else's is true. It needs a C compiler: Skipped without one."""

    def start(self) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            raise Skipped("there is no C compiler for the clock's shim (apt-get install gcc libc6-dev)")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        made = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", str(self._shim), str(_SHIM)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if made.returncode != 0:
            raise Skipped(f"the clock's shim cannot be compiled: {made.stderr.strip()[:300]}")
        self.move(0.0)
        super().start()
        if not self._moves():
            raise Skipped("the clock's shim does not reach this Redis, which is linked statically")

    @property
    def _shim(self) -> Path:
        return self.data_dir / "clock_shim.so"

    @property
    def _offset(self) -> Path:
        return self.data_dir / "clock_offset"

    def move(self, seconds: float) -> None:
        """Redis' clock is so much ahead of everybody's from now on (behind, if negative)."""
        with self._offset.open("r+b" if self._offset.exists() else "wb") as offset:
            offset.write(struct.pack("=q", round(seconds * 1e9)))

    def clocks_ms(self) -> tuple[int, int]:
        """What Redis' clock says, and the latest time that it has decided by."""
        with injectors.client(self) as connection:
            seconds, microseconds = connection.time()
            decided = connection.hget(f"{{{injectors.PARTITION}}}:meta", "clock")
        return seconds * 1000 + microseconds // 1000, int(decided or 0)

    def _moves(self) -> bool:
        self.move(1_000.0)
        moved = self.clocks_ms()[0] > time.time() * 1000 + 500_000
        self.move(0.0)
        return moved

    def _child(self, what: Server | Role, environ: dict[str, str]) -> Child:
        if what is self.redis:
            environ = {**environ, "LD_PRELOAD": str(self._shim), "CLOCK_SHIM_FILE": str(self._offset)}
        return super()._child(what, environ)


async def disk_full(trial: Trial) -> None:
    """The disk fills up while Redis writes: it ends rather than acknowledge what it cannot keep, and does not come back
    before there is room; then all that was acknowledged is there."""
    stack = trial.stack
    assert isinstance(stack, SmallDiskStack)
    for _ in range(trial.times):
        await asyncio.sleep(trial.rng.uniform(0.5, 2.0))
        await trial.broken("the disk is full", partial(_fill_up, stack, trial))


async def _fill_up(stack: SmallDiskStack, trial: Trial) -> Broken:
    pid = await injectors.living(stack, "redis")
    at = time.monotonic()
    stack.fill(trial.rng.randint(0, 400_000))
    try:
        ended = await asyncio.to_thread(processes.wait_until, lambda: not processes.alive(pid), 20)
        if not ended:
            trial.wrong("Redis goes on although its disk is full")
        acknowledged = trial.load.counts["201"] + trial.load.counts["200"]
        await asyncio.sleep(trial.rng.uniform(0.5, 2.5))
        trial.note(
            f"{trial.load.counts['201'] + trial.load.counts['200'] - acknowledged} answers 2xx while it was full"
        )
    finally:
        stack.ballast.unlink()
    return Broken("disk full", at, await stack.back("redis", pid))


async def clock_jumps(trial: Trial) -> None:
    """Redis' clock jumps ahead, then back behind everybody's. The time that it decides by follows the first and never
    the second, so a deadline comes early by no more than the jump, and none is lost."""
    stack = trial.stack
    assert isinstance(stack, MovedClockStack)
    async with _watched(stack, trial) as furthest:
        for _ in range(trial.times):
            await asyncio.sleep(trial.rng.uniform(0.3, 1.0))
            ahead, behind = trial.rng.uniform(1.0, 8.0), trial.rng.choice([0.0, -trial.rng.uniform(1.0, 30.0)])
            furthest.append(ahead)
            await trial.broken(f"the clock jumps {ahead:.1f} s ahead", partial(_jump, stack, ahead))
            await asyncio.sleep(trial.rng.uniform(0.5, 2.0))
            await trial.broken(f"the clock jumps back to {behind:.1f} s", partial(_jump, stack, behind))
            await asyncio.sleep(trial.rng.uniform(0.5, 2.0))
            stack.move(0.0)
        # Time goes on when the true clock has come to where the moved one was.
        patience = time.monotonic() + max(furthest) + 5
        while time.monotonic() < patience:
            if (await asyncio.to_thread(stack.clocks_ms))[1] <= time.time() * 1000:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)


async def _jump(stack: MovedClockStack, seconds: float) -> Broken:
    at = time.monotonic()
    stack.move(seconds)
    return Broken(f"clock moved by {seconds:.1f} s", at, time.monotonic())


@asynccontextmanager
async def _watched(stack: MovedClockStack, trial: Trial) -> AsyncIterator[list[float]]:
    """Look at the time decided by all the while: it never goes back, nor beyond the furthest jump (yielded)."""
    furthest = [0.0]
    looks = 0

    async def watch() -> None:
        nonlocal looks
        before = 0
        while True:
            decided = (await asyncio.to_thread(stack.clocks_ms))[1]
            most = time.time() * 1000 + max(furthest) * 1000 + _CLOCK_SLACK_MS
            if decided < before:
                trial.wrong(f"the time decided by went back by {before - decided} ms")
            if decided > most:
                trial.wrong(f"the time decided by is {decided - most:.0f} ms beyond every clock")
            before = decided
            looks += 1
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield furthest
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        trial.note(f"{looks} looks at the clock")


SCENARIOS = (
    Scenario("disk-full", "Redis' disk full (tmpfs)", disk_full, Setting(stack=SmallDiskStack), 3, 10, 60),
    Scenario(
        "clock-jumps", "Redis' clock jumps ahead and back", clock_jumps, Setting(stack=MovedClockStack), 4, 20, 60
    ),
)

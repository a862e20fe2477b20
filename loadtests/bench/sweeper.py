"""The product's sweeper, alone in a process of its own: `python -m loadtests.bench.sweeper URL`."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from flashhold import Engine
from flashhold.services.sweep import Sweeper
from loadtests import stores


@contextmanager
def running(redis_url: str, directory: Path, *, core: int | None) -> Iterator[None]:
    """Sweep that server until the block ends."""
    words = [sys.executable, "-m", "loadtests.bench.sweeper", redis_url]
    with stores.running(words, directory / "sweeper.log", core=core) as process:
        yield
        if process.poll() is not None:
            log = (directory / "sweeper.log").read_text()
            raise RuntimeError(f"The sweeper ended by itself with {process.returncode}:\n{log[-2000:]}")


async def sweep(redis_url: str) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with await Engine.connect(redis_url) as engine:
        await Sweeper(engine).run(stop)


if __name__ == "__main__":
    uvloop.run(sweep(sys.argv[1]))

"""Every figure that FlashHold is held to, in one table, with the machine that it was measured on.

    make bench                  all of them, about six minutes
    make bench ONLY=engine,http

Exit status 1 when a figure misses its bar or could not be measured.
"""

import argparse
import asyncio
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import uvloop
from rich.console import Console
from rich.markup import escape

from flashhold.domain.errors import FlashHoldError
from flashhold.embedded.binaries import RedisBinary, redis_binaries
from loadtests import stores
from loadtests.bench.figures import Figure, as_dict, markdown, table
from loadtests.machine import machine, sentence, wide_console

BENCHES = {
    "engine": "loadtests.bench.engine",
    "http": "loadtests.bench.http_holds",
    "levels": "loadtests.bench.levels",
    "write-behind": "loadtests.bench.write_behind",
    "memory": "loadtests.bench.memory",
    "live-holds": "loadtests.bench.live_holds",
    "audit": "loadtests.bench.audit",
    "deadline": "loadtests.bench.deadline",
    "stress": "loadtests.bench.stress",
}
"""Each module has a `Size` and a `measure(directory, size, binary)`."""


class Run(NamedTuple):
    """What the benches said; `troubles`: why one of them could not be measured, by its name."""

    figures: list[Figure]
    troubles: dict[str, str]


async def run(names: list[str], binary: RedisBinary | None, console: Console) -> Run:
    """The named benches one after the other, each on servers of its own. One that fails doesn't spoil the others."""
    done = Run([], {})
    for name in names:
        began = time.monotonic()
        console.print(f"{name} …")
        with tempfile.TemporaryDirectory(prefix="flashhold-bench-") as directory:
            module = importlib.import_module(BENCHES[name])
            try:
                done.figures.extend(await module.measure(Path(directory), module.Size(), binary))
            except (RuntimeError, FlashHoldError, OSError, subprocess.SubprocessError) as error:
                done.troubles[name] = str(error)
                console.print(f"[red]{name} could not be measured:[/red] {escape(str(error))}")
        console.print(f"{name}: {time.monotonic() - began:.0f} s")
        await asyncio.sleep(1)  # let the disk and the ended servers settle before the next is timed
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"comma-separated, of {', '.join(BENCHES)}")
    parser.add_argument("--server", choices=("redis", "valkey"), help="default: the one that `flashhold up` would run")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else")
    parser.add_argument("--reports", type=Path, default=stores.REPOSITORY / "reports")
    options = parser.parse_args()
    names = [name.strip() for name in options.only.split(",")] if options.only else list(BENCHES)
    if unknown := set(names) - set(BENCHES):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    binary = _server(options.server)
    if options.server and binary is None:
        parser.error(f"there is no {options.server} server here")
    console = wide_console(options.json)
    facts = machine()
    done = uvloop.run(run(names, binary, console))
    told = {"machine": facts, "figures": [as_dict(figure) for figure in done.figures], "troubles": done.troubles}
    options.reports.mkdir(parents=True, exist_ok=True)
    (options.reports / "bench.json").write_text(json.dumps(told, indent=2))
    (options.reports / "bench.md").write_text(markdown(done.figures, sentence(facts)))
    if options.json:
        print(json.dumps(told))
    else:
        console.print(table(done.figures))
        console.print(f"Machine: {sentence(facts)}")
    return 1 if done.troubles or any(figure.passed is False for figure in done.figures) else 0


def _server(product: str | None) -> RedisBinary | None:
    if product is None:
        return None
    return next((found for found in redis_binaries() if found.product == product), None)


if __name__ == "__main__":
    sys.exit(main())

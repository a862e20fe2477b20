"""The hardware and the software that a figure was measured on; a figure without them says nothing."""

import os
import platform
import time
from pathlib import Path
from typing import Any

from rich.console import Console


def cpu_model() -> str:
    """As the kernel names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: the platform's own word has to do
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def machine() -> dict[str, Any]:
    """Facts to print beside every figure."""
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "memory_gib": memory_gib(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "load_before": round(os.getloadavg()[0], 2),
    }


def sentence(facts: dict[str, Any]) -> str:
    """The same in one line."""
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}, "
        f"Python {facts['python']}, {facts['date']}, load before the run {facts['load_before']}"
    )


def wide_console(quiet: bool) -> Console:
    """Where a run reports to: standard output, or with `quiet` standard error. Tables keep their columns in a pipe."""
    console = Console(stderr=quiet, highlight=False)
    return console if console.is_terminal else Console(stderr=quiet, highlight=False, width=160)

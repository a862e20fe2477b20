"""One running `flashhold up` for all pages, where a reader would have one: in ./flashhold-data."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.embedded.running_up import RunningUp

STAND_IN = Path(__file__).with_name("stand_in_curl.py")


@pytest.fixture(scope="module")
def up(server_directory: Path) -> Iterator[RunningUp]:
    """A running FlashHold."""
    running = RunningUp(server_directory / "reader" / "flashhold-data")
    running.data_dir.parent.mkdir(exist_ok=True)
    running.start()
    yield running
    running.stop()
    running.kill_everything()


@pytest.fixture
def reader_environ(up: RunningUp, redis_servers: Callable[[str], str], tmp_path: Path) -> dict[str, str]:
    """What a reader's shell has: the commands, and where things are when it is not where the pages say."""
    tools = tmp_path / "tools"
    tools.mkdir()
    if shutil.which("curl") is None:
        (tools / "curl").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
        (tools / "curl").chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLASHHOLD_")}
    return clean | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(tools), clean["PATH"]]),
        "FLASHHOLD_URL": up.url,
        "FLASHHOLD_API_KEY": (up.data_dir / "admin.key").read_text().strip(),
    }

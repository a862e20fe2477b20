"""Where the recorded files are."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.conftest import free_port
from tests.rehearse import small_shop

_BESIDE_THE_PROJECT = Path(__file__).parents[2].parent / "shared" / "data" / "online_retail.csv.gz"


@pytest.fixture
def small_file() -> Path:
    """A small shop with every oddity of the real file."""
    return small_shop.PATH


@pytest.fixture(scope="session")
def real_file() -> Path:
    """The UCI file, which the project does not contain: from FLASHHOLD_RETAIL_CSV, or beside the project."""
    path = Path(os.environ.get("FLASHHOLD_RETAIL_CSV", _BESIDE_THE_PROJECT))
    if not path.exists():
        pytest.skip("the UCI Online Retail file is not here; FLASHHOLD_RETAIL_CSV can name it")
    return path


@dataclass(frozen=True)
class Running:
    """A whole FlashHold on this machine."""

    url: str
    data_dir: Path

    @property
    def key(self) -> str:
        """The admin key that `up` wrote."""
        return (self.data_dir / "admin.key").read_text().strip()


@pytest.fixture(scope="module")
def flashhold() -> Iterator[Running]:
    """`flashhold up` in a directory of its own, for the tests of one module."""
    data_dir = Path(tempfile.mkdtemp(prefix="fh-rehearse-"))
    running = Running(f"http://127.0.0.1:{(port := free_port())}", data_dir)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLASHHOLD_")}
    command = [sys.executable, "-m", "flashhold", "up", "--port", str(port), "--data-dir", str(data_dir)]
    log = data_dir / "up.log"
    with log.open("wb") as out:
        up = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            _until_ready(running.url, up, log)
            yield running
        finally:
            up.terminate()
            up.wait(40)
            shutil.rmtree(data_dir, ignore_errors=True)


def _until_ready(url: str, up: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and up.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"`flashhold up` did not get ready:\n{log.read_text()[-3000:]}")

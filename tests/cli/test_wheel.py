"""The wheel by itself: built from this checkout, installed into a clean environment, used from another directory."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

USE_IT = """
import asyncio, sys
import flashhold
from flashhold import Engine, Line
from flashhold.engine.scripts import lua_folder
from flashhold.ledger import upgrade

async def sell(url):
    async with await Engine.connect(url) as engine:
        await engine.install()
        await engine.move("receipt", "mug", 1, key="r1")
        first = await engine.hold(key="h1", lines=[Line("mug", 1)])
        second = await engine.hold(key="h2", lines=[Line("mug", 1)])
        sold = await engine.commit(first.value.id, reference="order-1")
        return sold.value.state.label, str(second.reason)

print(flashhold.__file__)
print(lua_folder())
print(*asyncio.run(sell(sys.argv[1])))
print(upgrade(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has FlashHold from its wheel alone, and of this environment only the libraries.

    The wheel is unpacked rather than installed by pip, which may not be here: for a wheel of pure Python that is
    the whole of installing. The libraries come by a .pth line, which does not read the .pth files there, and so
    not the one that points to this checkout.
    """
    folder = tmp_path_factory.mktemp("wheel")
    build = f"import hatchling.build; hatchling.build.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_a_wheel_decides_and_remembers(
    installed: Path, one_redis_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    """Its Lua sells the last unit once, and its migrations prepare a ledger: both kinds of files are inside."""
    used = subprocess.run(
        [installed, "-c", USE_IT, one_redis_url, empty_database_url],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert used.returncode == 0, used.stderr
    package, lua, outcome, revision = used.stdout.splitlines()
    home = installed.parent.parent
    assert home in Path(package).parents
    assert home in Path(lua).parents
    assert outcome == "committed insufficient-stock"
    assert revision


def test_a_wheel_has_the_command(installed: Path, tmp_path: Path) -> None:
    """`flashhold` starts from it and lists what it can do."""
    asked = subprocess.run(
        [installed, "-m", "flashhold", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    for command in ("up", "serve", "worker", "migrate", "keys", "doctor", "audit", "resume", "rehearse"):
        assert f" {command} " in asked.stdout


def test_a_wheel_has_its_licence(installed: Path) -> None:
    """The text of the licence that the metadata names comes along, whole."""
    [text] = installed.parent.parent.rglob("flashhold-*.dist-info/licenses/LICENSE")
    assert text.read_text() == (ROOT / "LICENSE").read_text()
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text.read_text()
    assert "limitations under the License." in text.read_text()

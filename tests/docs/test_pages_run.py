"""What the pages tell a reader to do is done, as it stands there, and must give what they show."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, Run, runs, shows
from tests.docs.stand_in_curl import __file__ as stand_in_curl
from tests.embedded.running_up import RunningUp

AT_LEAST = 'sleep() { command sleep "$1"; flashhold audit > audit.out; }\n'
"""A page says `sleep 1` where the ledger has to follow. On a busy machine that may be too short, so here it also waits
as the audit does, until the ledger is where Redis is."""

SHELL_PAGES = [page for page in PAGES if runs(page, "sh")]
PYTHON_RUNS = [run for page in PAGES for run in runs(page, "python")]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _check(run: Run, output: str) -> None:
    where = f"{_name(run.page)}:{run.line}"
    if run.shown is not None:
        assert shows(run.shown, output), f"{where} shows\n{run.shown.text}\nbut there came\n{output}"


@pytest.mark.parametrize("page", SHELL_PAGES, ids=_name)
def test_the_shell_blocks_of_a_page_give_what_it_shows(
    page: Path, up: RunningUp, reader_environ: dict[str, str], tmp_path: Path
) -> None:
    """All blocks of a page are one reader's session, in one shell, from top to bottom."""
    here = runs(page, "sh")
    outputs = [tmp_path / f"{number}.out" for number in range(len(here))]
    session = [f"{{\n{run.text}}} > '{output}'\n" for run, output in zip(here, outputs, strict=True)]
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", AT_LEAST + "".join(session)],
        cwd=up.data_dir.parent, env=reader_environ, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{[output.read_text() for output in outputs if output.exists()]}\n{done.stderr}"
    for run, output in zip(here, outputs, strict=True):
        _check(run, output.read_text())


@pytest.mark.parametrize("run", PYTHON_RUNS, ids=lambda run: f"{_name(run.page)}:{run.line}")
def test_a_python_block_gives_what_the_page_shows(run: Run, one_redis_url: str, reader_environ: dict[str, str]) -> None:
    """A Python block is a program of its own."""
    environ = reader_environ | {"FLASHHOLD_REDIS_URL": one_redis_url}
    done = subprocess.run(
        [sys.executable, "-c", run.text], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    _check(run, done.stdout)


def test_the_stand_in_for_curl_sends_and_shows_what_curl_would(up: RunningUp, reader_environ: dict[str, str]) -> None:
    """On machines without curl the pages are carried out by a stand-in, so that must be held to the truth too."""
    request = ["-s", "-i", "-H", "Idempotency-Key: stand-in", "--json", '{"lines": []}', f"{up.url}/v1/holds"]
    bearer = ["-H", f"Authorization: Bearer {reader_environ['FLASHHOLD_API_KEY']}"]
    asked = [sys.executable, stand_in_curl, *bearer, *request]
    shown = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout
    assert shown.startswith("HTTP/1.1 422 ")
    assert "content-type: application/problem+json" in shown
    assert '"field":"lines"' in shown


def test_readme_and_tutorial_are_carried_out() -> None:
    """Should a marker be mistyped, nothing would run, and all of the above would pass."""
    assert {"README.md", "docs/tutorial.md", "docs/how-to/checkout.md"} <= set(map(_name, SHELL_PAGES))
    assert {"README.md", "docs/how-to/checkout.md"} <= {_name(run.page) for run in PYTHON_RUNS}

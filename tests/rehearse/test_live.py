"""Rehearsals through a real `flashhold up`: they come out clean, and what is planted is found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flashhold.rehearse.client import ApiUnreachable
from flashhold.rehearse.reader import EVENT_HEADER
from flashhold.rehearse.rehearsal import Options, rehearse
from tests.conftest import free_port
from tests.rehearse.conftest import Running

PLAYING = "Playing the orders"


def _flashhold(*arguments: str | Path, key: str = "") -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLASHHOLD_")}
    if key:
        environment["FLASHHOLD_API_KEY"] = key
    command = [sys.executable, "-m", "flashhold", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def _post(running: Running, path: str, body: dict[str, object], key: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {running.key}", "idempotency-key": key}
    return httpx.post(running.url + path, json=body, headers=headers)


def test_full_stock(flashhold: Running, small_file: Path, tmp_path: Path) -> None:
    """The command: nothing refused, nothing oversold, no difference; a report beside it; then the audit is clean."""
    report = tmp_path / "report.html"
    done = _flashhold(
        "rehearse", small_file, "--url", flashhold.url, "--data-dir", flashhold.data_dir, "--json", "--report", report
    )
    assert done.returncode == 0, done.stderr + done.stdout
    told = json.loads(done.stdout)
    assert (told["refused"], told["oversold_units"], told["differences"]) == (0, 0, 0)
    assert told["units_held"] == told["units_committed"] == told["units_shipped"] > 80_995
    assert told["entries_of_others"] == told["findings"] == []
    assert told["rows"] == sum(told["rows_by_class"].values())
    assert "Every unit accounted for" in report.read_text()
    audit = _flashhold("audit", "--data-dir", flashhold.data_dir)
    assert audit.returncode == 0, audit.stdout + audit.stderr


@pytest.mark.parametrize("connections", [2, 16])
def test_short_stock(flashhold: Running, small_file: Path, connections: int) -> None:
    """Scarcity on a system that has stock already, in a pool of its own: exactly the refusals that the file says."""
    options = Options(stock_ratio=0.8, connections=connections, pool=f"scarce {connections}")
    result = rehearse(small_file, flashhold.url, flashhold.key, options)
    assert result.clean, (result.settled.differences[:5], result.settled.findings[:5])
    assert result.refused == len(result.expected.refused_holds) > 10
    assert result.settled.oversold_units == 0


def test_on_top_of_stock(flashhold: Running, small_file: Path) -> None:
    """Twice through the same pool, the second time from what the first has left."""
    for _ in range(2):
        result = rehearse(small_file, flashhold.url, flashhold.key, Options(limit_rows=200))
        assert result.clean, (result.settled.differences[:5], result.settled.findings[:5])


def test_a_planted_unit_is_found(flashhold: Running, small_file: Path) -> None:
    """A receipt that somebody else posts during the run is a difference, and its ledger entry is named."""
    planted: list[int] = []

    def watch(stage: str, _done: int, _total: int) -> None:
        if stage == PLAYING and not planted:
            body: dict[str, object] = {"type": "receipt", "sku": "a:b", "quantity": 1}
            planted.append(_post(flashhold, "/v1/movements", body, "planted-1").status_code)

    result = rehearse(small_file, flashhold.url, flashhold.key, Options(), watch)
    assert planted == [201]
    assert not result.clean
    assert [(d.sku, d.bucket) for d in result.settled.differences] == [("a:b", "outside"), ("a:b", "available")]
    (entry,) = result.settled.others
    assert "receipt: a:b outside -1, a:b available +1" in entry


def test_a_stolen_unit_is_found(flashhold: Running, small_file: Path) -> None:
    """A hold of somebody else's shows as units held that the file does not explain."""
    planted: list[int] = []

    def watch(stage: str, _done: int, _total: int) -> None:
        if stage == PLAYING and not planted:
            body: dict[str, object] = {"lines": [{"sku": "a:b", "quantity": 1}]}
            planted.append(_post(flashhold, "/v1/holds", body, "planted-2").status_code)

    result = rehearse(small_file, flashhold.url, flashhold.key, Options(), watch)
    assert planted == [201]
    assert [(d.sku, d.bucket) for d in result.settled.differences] == [("a:b", "available"), ("a:b", "held")]


def test_cut_off_and_taken_up_again(flashhold: Running, small_file: Path) -> None:
    """A run that ends in the middle is played to its end under its name: nothing happens twice."""

    class Cut(Exception):
        pass

    def cut(stage: str, done: int, total: int) -> None:
        if stage == PLAYING and done > 1:
            raise Cut

    options = Options(run="cut-off", pool="cut off", connections=4, stock_ratio=0.9)
    with pytest.raises(Cut):
        rehearse(small_file, flashhold.url, flashhold.key, options, cut)
    for _ in range(2):
        result = rehearse(small_file, flashhold.url, flashhold.key, options)
        assert result.clean, (result.settled.differences[:5], result.settled.findings[:5])


def test_events(flashhold: Running, tmp_path: Path) -> None:
    """The event form, with stock of its own, abandoned carts and a write-off that the stock can't bear."""
    path = tmp_path / "drop.csv"
    rows = [EVENT_HEADER, ",receipt,,tee,50,,"]
    rows += [f",sale,o{n},tee,1,buyer {n % 7}," for n in range(60)]
    rows += [",abandoned,x1,tee,1,,", ",return,o1,tee,2,,", ",abandoned,x2,tee,2,,", ",sale,o60,tee,2,,"]
    rows += [",damage,,tee,1,,torn", ",adjustment,,tee,3,,found", ",damage,,tee,1,,torn"]
    path.write_text("\n".join(rows))
    result = rehearse(path, flashhold.url, flashhold.key, Options(pool="drop"))
    assert result.clean, (result.settled.differences, result.settled.findings)
    assert (result.orders, result.refused, len(result.played.refused_movements)) == (63, 11, 1)
    assert result.played.units["committed"] == 52


def test_recorded_times(flashhold: Running, tmp_path: Path) -> None:
    """With a speed-up the recorded intervals are kept, compressed."""
    path = tmp_path / "slow.csv"
    path.write_text(
        f"{EVENT_HEADER}\n2025-11-28T09:00:00,sale,o1,slow tee,1,,\n2025-11-28T09:01:00,sale,o2,slow tee,1,,\n"
    )
    result = rehearse(path, flashhold.url, flashhold.key, Options(speed_up=60))
    assert result.clean
    assert 1.0 <= result.seconds.play < 5.0


def test_exit_statuses(flashhold: Running, small_file: Path, tmp_path: Path) -> None:
    """1 differences, 2 usage, 3 unreachable; nothing on standard output but the object."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    done = _flashhold("rehearse", small_file, "--url", nowhere, "--json", key="k")
    assert (done.returncode, done.stdout) == (3, "")
    done = _flashhold("rehearse", small_file, "--url", flashhold.url, "--json", "--data-dir", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "admin.key" in done.stderr
    done = _flashhold("rehearse", small_file, "--url", flashhold.url, key="fh_not_a_key")
    assert done.returncode == 2
    assert "401" in done.stderr
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    done = _flashhold("rehearse", tmp_path / "x.csv", "--url", flashhold.url, "--data-dir", flashhold.data_dir)
    assert done.returncode == 2
    assert "the header is" in done.stderr
    done = _flashhold("rehearse", small_file, "--stock-ratio", "0", key="k")
    assert done.returncode == 2


def test_unreachable_at_once(small_file: Path) -> None:
    """No minute of patience for an API that was never there."""
    with pytest.raises(ApiUnreachable):
        rehearse(small_file, f"http://127.0.0.1:{free_port()}", "key")

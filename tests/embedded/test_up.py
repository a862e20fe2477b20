"""`flashhold up`, whole: real stores, real processes, real signals."""

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashhold.embedded import processes
from tests.embedded.running_up import ROLES, RunningUp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningUp]:
    """One `up` for the tests that leave it running, in a directory with a space in its name."""
    running = RunningUp(tmp_path_factory.mktemp("up") / "data dir")
    try:
        running.start()
        yield running
    finally:
        running.kill_everything()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[RunningUp]:
    """An `up` of the test's own, not yet started."""
    running = RunningUp(tmp_path / "data")
    yield running
    running.kill_everything()


def flashhold(up: RunningUp, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command beside the `up`, from another directory."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("FLASHHOLD_")}
    command = [sys.executable, "-m", "flashhold", *words, "--data-dir", str(up.data_dir)]
    return subprocess.run(command, cwd="/", env=environ, capture_output=True, text=True, check=False)


def test_one_line_says_what_is_ready_where(up: RunningUp) -> None:
    """The line names the URL, the key's file, the stores and what an acknowledgement promises."""
    [line] = [line for line in up.output().splitlines() if "ready" in line]
    for part in (up.url, str(up.data_dir / "admin.key"), "Postgres", "durability: disk"):
        assert part in line


def test_the_curl_lines_work(up: RunningUp) -> None:
    """Copied into a shell they receive stock, hold a unit and sell it."""
    script = "\n".join(line for line in up.output().splitlines() if line.startswith("  "))
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    receipt, hold, sold = said.replace("}hld", "}\nhld").splitlines()
    assert json.loads(receipt)["kind"] == "receipt"
    assert json.loads(sold)["id"] == hold
    assert json.loads(sold)["state"] == "committed"


def test_the_first_key_is_private(up: RunningUp) -> None:
    """Only its owner can read it."""
    assert stat.S_IMODE((up.data_dir / "admin.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(up.data_dir.stat().st_mode) == 0o700


def test_pid_files_name_the_servers_themselves(up: RunningUp) -> None:
    """Not a shell, not `unshare`: a signal to the pid must reach the server."""
    shown = {role: " ".join(processes.command_line(pid)) for role, pid in up.pids().items()}
    assert "server" in shown["redis"].split()[0]
    assert shown["postgres"].split()[0].endswith("postgres")
    assert shown["api"].endswith("flashhold serve")
    assert shown["worker"].endswith("flashhold worker")


def test_a_second_up_is_refused(up: RunningUp) -> None:
    """Status 1, the holder's pid, and the first goes on undisturbed."""
    before = up.pids()
    said = flashhold(up, "up", "--port", "0")
    assert said.returncode == 1
    assert str(before["up"]) in said.stderr
    assert up.pids() == before


def test_a_taken_port_is_refused_and_nothing_is_left(up: RunningUp, fresh: RunningUp) -> None:
    """Status 1 and a sentence, before any store is started."""
    process = fresh.spawn("--port", up.url.rpartition(":")[2])
    assert process.wait(60) == 1
    assert "Address already in use" in fresh.output()
    assert fresh.family() == []


@pytest.mark.parametrize("role", ROLES)
def test_what_dies_is_started_again(up: RunningUp, role: str) -> None:
    """After kill -9 of any one process: a line about it, a true pid file, all stock there, orders taken again."""
    up.receive(role, 5, f"receipt-{role}")
    before = up.pid(role)
    os.kill(before, signal.SIGKILL)
    assert up.says(f"{role} ended (signal 9)")
    assert up.says(f"{role} runs again (pid {up.pid(role)})")
    assert up.pid(role) != before
    assert processes.alive(up.pid(role))
    assert up.on_hand(role) == 5
    up.receive(role, 2, f"receipt-{role}-2")
    assert up.on_hand(role) == 7


def test_doctor_and_audit_find_nothing(up: RunningUp) -> None:
    """Beside an `up` both need only its data directory, and both are clean, after all those deaths too."""
    for command in ("doctor", "audit"):
        said = flashhold(up, command, "--json")
        assert said.returncode == 0, said.stdout + said.stderr
        json.loads(said.stdout)


def test_keys_are_made_used_listed_and_revoked(up: RunningUp) -> None:
    """A new key works at once with its scopes only, the list hides the secret, a revoked one is out within 5 s."""
    made = json.loads(flashhold(up, "keys", "create", "--scope", "read", "--name", "looker", "--json").stdout)
    assert made["scopes"] == ["read"]
    status = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Authorization: Bearer {made['key']}"]
    read, write = [*status, f"{up.url}/v1/ledger"], [*status, "-X", "POST", f"{up.url}/v1/holds"]
    assert subprocess.check_output(read, text=True) == "200"
    assert subprocess.check_output(write, text=True) == "403"
    shown = flashhold(up, "keys", "list").stdout
    assert made["id"] in shown
    assert made["key"] not in shown
    assert flashhold(up, "keys", "revoke", made["id"]).returncode == 0
    assert processes.wait_until(lambda: subprocess.check_output(read, text=True) == "401", 5.0, every_s=0.25)
    assert flashhold(up, "keys", "revoke", "unknown").returncode == 1
    assert flashhold(up, "keys", "create", "--scope", "everything").returncode == 2


def test_everything_killed_starts_again_on_the_same_data(fresh: RunningUp) -> None:
    """kill -9 of all processes at once, several HTTP processes among them: the same command goes on where they were."""
    fresh._environ["FLASHHOLD_PROCESSES"] = "2"
    fresh.start()
    key = (fresh.data_dir / "admin.key").read_text()
    fresh.receive("mug", 5, "r1")
    fresh.kill_everything()
    assert fresh.family() == []
    fresh.start()
    assert fresh.on_hand("mug") == 5
    assert (fresh.data_dir / "admin.key").read_text() == key


def test_orphans_of_a_killed_up_do_not_stand_in_the_way(fresh: RunningUp) -> None:
    """kill -9 of `up` alone, and of the API's parent, whose children go on holding the port: all give way."""
    fresh.start()
    fresh.receive("mug", 5, "r1")
    port = fresh.url.rpartition(":")[2]
    assert fresh.process is not None
    for pid in (fresh.process.pid, fresh.pid("api")):
        os.kill(pid, signal.SIGKILL)
    fresh.process.wait()
    fresh.start("--port", port)
    assert fresh.on_hand("mug") == 5
    pids = fresh.pids()
    assert sorted(pids["up"] == pid or processes.alive(pid) for pid in pids.values()) == [True] * 5


def test_a_stop_is_clean_and_lets_requests_finish(fresh: RunningUp) -> None:
    """SIGTERM in the middle of a crowd: status 0 within 30 s, nobody killed, no process and no pid file left, and every
    hold that was acknowledged is there at the next start."""
    fresh.start()
    fresh.receive("mug", 1000, "r1")
    promised: list[str] = []
    closing = threading.Event()

    def buyer(number: int) -> None:
        for turn in range(100):
            if closing.is_set():
                return
            line = {"lines": [{"sku": "mug", "quantity": 1}]}
            with contextlib.suppress(OSError):  # the door is shut: nothing was promised
                promised.append(fresh.request("POST", "/v1/holds", line, f"h-{number}-{turn}", patience_s=0)["id"])

    crowd = [threading.Thread(target=buyer, args=(number,)) for number in range(8)]
    for thread in crowd:
        thread.start()
    assert processes.wait_until(lambda: len(promised) > 20, 30)
    status, seconds = fresh.stop()
    closing.set()
    for thread in crowd:
        thread.join()
    assert status == 0, fresh.output()
    assert seconds < 30
    assert "killed" not in fresh.output()
    assert fresh.family() == []
    assert list((fresh.data_dir / "run").glob("*.pid")) == []
    fresh.start()
    assert {fresh.request("GET", f"/v1/holds/{hold}")["state"] for hold in promised} == {"held"}


def test_a_stop_during_the_start_leaves_nothing(fresh: RunningUp) -> None:
    """Ctrl-C while Postgres is still being set up."""
    process = fresh.spawn()
    assert processes.wait_until((fresh.data_dir / "postgres").exists, 30)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0, fresh.output()
    assert fresh.family() == []
    fresh.start()


def test_a_redis_that_lost_its_data_is_rebuilt(fresh: RunningUp) -> None:
    """With the ledger ahead of an empty Redis `up` rebuilds it before it is ready, under a new epoch."""
    fresh.start()
    fresh.receive("mug", 5, "r1")
    assert processes.wait_until(lambda: bool(fresh.request("GET", "/v1/ledger")["items"]), 30)
    assert fresh.stop()[0] == 0
    shutil.rmtree(fresh.data_dir / "redis")
    fresh.start()
    assert fresh.on_hand("mug") == 5
    assert fresh.request("GET", "/v1/skus/mug")["epoch"] == 2
    assert fresh.stop()[0] == 0


def test_a_store_of_ones_own_is_used(fresh: RunningUp, one_redis_url: str, empty_database_url: str) -> None:
    """With both URLs set nothing is embedded, and the stores are migrated and installed all the same."""
    fresh._environ |= {"FLASHHOLD_REDIS_URL": one_redis_url, "FLASHHOLD_DATABASE_URL": empty_database_url}
    fresh.start()
    fresh.receive("mug", 5, "r1")
    assert fresh.on_hand("mug") == 5
    assert {path.name for path in (fresh.data_dir / "run").glob("*.pid")} == {"up.pid", "api.pid", "worker.pid"}
    assert fresh.stop(signal.SIGINT)[0] == 0


def test_a_store_that_is_away_is_status_3(fresh: RunningUp) -> None:
    """A named Redis that nobody serves: a sentence, status 3, nothing left running."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        fresh._environ["FLASHHOLD_REDIS_URL"] = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
        process = fresh.spawn()
        assert process.wait(60) == 3, fresh.output()
    assert "Redis can't be reached" in fresh.output()
    assert fresh.family() == []

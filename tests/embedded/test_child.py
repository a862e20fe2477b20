"""Running one process: how it starts, how a start fails, what is left."""

import os
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from flashhold.embedded import processes
from flashhold.embedded.child import Child, StartFailed, describe, write_atomically
from flashhold.embedded.roles import Role
from flashhold.embedded.supervisor import Refused, free_or_refused, locked


class Program(Role):
    """A role that runs a line of Python and answers once a file exists."""

    def __init__(self, directory: Path, line: str) -> None:
        super().__init__("program", "none", directory)
        self.line = line

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.line]

    def answers(self) -> bool:
        return (self.directory / "answers").exists()


def child_of(tmp_path: Path, line: str) -> Child:
    return Child(Program(tmp_path, line), log=tmp_path / "log", pid_file=tmp_path / "pid")


def test_a_start_that_fails_says_what_the_log_says(tmp_path: Path) -> None:
    """The error holds the program's last words, and no pid file stays."""
    with pytest.raises(StartFailed, match=r"(?s)program ended at once \(status 7\).*no space left") as raised:
        child_of(tmp_path, "import sys; print('no space left'); sys.exit(7)").start(patience_s=10)
    assert str(tmp_path / "log") in str(raised.value)
    assert not (tmp_path / "pid").exists()


def test_a_start_without_an_answer_is_ended(tmp_path: Path) -> None:
    """Also when the program will not listen to the polite signal."""
    child = child_of(
        tmp_path, "import signal, time; signal.signal(15, lambda *_: None); time.sleep(60); time.sleep(60)"
    )
    with pytest.raises(StartFailed, match="did not answer within 1 s"):
        child.start(patience_s=1)
    assert child.what.leftovers() == []


def test_a_stop_says_whether_it_had_to_kill(tmp_path: Path) -> None:
    """True for who goes by itself, False for who must be killed."""
    (tmp_path / "answers").touch()
    polite = child_of(tmp_path, "import time; time.sleep(60)")
    polite.start(patience_s=10)
    assert polite.stop(patience_s=10)
    (tmp_path / "answers").unlink()
    deaf = child_of(
        tmp_path,
        "import signal, time; signal.signal(15, signal.SIG_IGN); open('answers', 'w'); time.sleep(60)",
    )
    deaf.start(patience_s=10)
    assert not deaf.stop(patience_s=0.3)


def test_children_of_a_killed_child_are_ended(tmp_path: Path) -> None:
    """They go on holding ports and files, and are nobody's any more."""
    (tmp_path / "answers").touch()
    line = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    child = child_of(tmp_path, line)
    child.start(patience_s=10)
    assert processes.wait_until(lambda: len(child.what.leftovers()) == 2, 10)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    assert processes.wait_until(lambda: child.ended() is not None, 5)
    assert len(child.clear_leftovers(patience_s=5)) == 1
    assert child.what.leftovers() == []


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    """However the parent ends: the kernel sees to it."""
    program = f"""
import time
from pathlib import Path
from tests.embedded.test_child import child_of
child = child_of(Path({str(tmp_path)!r}), "import time; time.sleep(60)")
child.spawn()
time.sleep(60)
"""
    parent = Child(_Script(tmp_path, program), log=tmp_path / "parent.log")
    parent.spawn()
    assert processes.wait_until((tmp_path / "pid").exists, 20), (tmp_path / "parent.log").read_text()
    orphan = int((tmp_path / "pid").read_text())
    assert processes.alive(orphan)
    assert parent.pid is not None
    os.kill(parent.pid, signal.SIGKILL)
    assert processes.wait_until(lambda: not processes.alive(orphan), 5)
    assert parent.ended() is not None or processes.wait_until(lambda: parent.ended() is not None, 5)


class _Script(Program):
    """Another role, so that it does not take its own child for what an earlier start left."""

    def __init__(self, directory: Path, line: str) -> None:
        super().__init__(directory, line)
        self.name = "parent"

    def environ(self, environ: object) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.quick
def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """The mode holds from the first byte on, whatever the file was before."""
    path = tmp_path / "key"
    path.write_text("old")
    write_atomically(path, "new", mode=0o600)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.quick
def test_a_death_in_words() -> None:
    """Signals and statuses are told apart."""
    assert (describe(-9), describe(3)) == ("signal 9", "status 3")


@pytest.mark.quick
def test_a_port_is_free_or_refused() -> None:
    """0 gives one that is free; a taken one and a host that is not ours are refused in words."""
    assert free_or_refused("127.0.0.1", 0) > 0
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(Refused, match="choose --port"):
            free_or_refused("127.0.0.1", other.getsockname()[1])
    with pytest.raises(Refused, match="Cannot listen"):
        free_or_refused("192.0.2.1", 0)


@pytest.mark.quick
def test_a_data_directory_has_one_holder(tmp_path: Path) -> None:
    """The second is told who; after the first has gone the next may."""
    (tmp_path / "run").mkdir()
    with locked(tmp_path):
        assert (tmp_path / "run" / "up.pid").read_text() == f"{os.getpid()}\n"
        with pytest.raises(Refused, match=f"pid {os.getpid()}"), locked(tmp_path):
            pass
    assert not (tmp_path / "run" / "up.pid").exists()
    with locked(tmp_path):
        pass

"""Operating-system processes: who runs, who they are, how they end, and as whom a server may run.

Nothing here knows what the processes do. Pids are plain integers, times are seconds.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from flashhold.domain.errors import Misconfigured

_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1

_UNSHARE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
"""A user namespace in which root's files belong to user 1000: the server does not see itself as root, holds no
capability, and nothing on the disk changes its owner."""

_SETPRIV = (
    "setpriv",
    "--reuid={uid}",
    "--regid={gid}",
    "--clear-groups",
    # Containers often run as root in a directory that only root may enter. This one capability lets the
    # account through; the secure bit makes access(2), with which Postgres checks its own path, agree.
    "--securebits=+no_setuid_fixup",
    "--inh-caps=-all,+dac_override",
    "--ambient-caps=-all,+dac_override",
    "--bounding-set=-all,+dac_override",
    "--pdeathsig=keep",
    "--",
)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not yet collected by its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not _PROC.joinpath("self").exists()  # without /proc the signal's answer stands


def command_line(pid: int) -> list[str]:
    """The words a process was started with (or what it shows in their place); empty if it is gone."""
    if _PROC.joinpath("self").exists():
        try:
            return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        except OSError:
            return []
    shown = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)
    return shown.stdout.split()


def working_directory(pid: int) -> Path | None:
    """Where a process stands, or None if it is gone or that cannot be known."""
    try:
        return Path(os.readlink(_PROC / str(pid) / "cwd"))
    except OSError:
        return None


def environment(pid: int) -> list[bytes]:
    """`NAME=value` as a process was given them; empty if it is gone, not ours, or has overwritten them."""
    try:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def all_pids() -> list[int]:
    """Every process of this machine that can be seen; empty where there is no /proc."""
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()] if _PROC.exists() else []


def end(pid: int, signum: int, patience_s: float) -> bool:
    """Ask a process to end, and after `patience_s` make it. True if it went by itself. Ignores one already gone."""
    if send(pid, signum) and not wait_until(lambda: not alive(pid), patience_s):
        send(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), 5.0)
        return False
    return True


def send(pid: int, signum: int) -> bool:
    """Signal a process; False if it is gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool], patience_s: float, every_s: float = 0.02) -> bool:
    """Poll `condition` until it holds; False if it did not within `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def die_with_parent(signum: int) -> Callable[[], None] | None:
    """A `preexec_fn` by which the kernel sends the child `signum` when its parent dies, however it dies.

    None where the kernel cannot (not Linux); there the next start finds the orphans by their pid files.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork: after it only the call is safe
    parent = os.getpid()

    def ask_the_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return ask_the_kernel


def unprivileged(binary: Path, directory: Path) -> list[str]:
    """The words to put before a server's command line so that it does not run as root; none if we are not root.

    Postgres refuses to run as root, and no store needs to. `directory` is the server's own: it exists and is
    handed to whoever the server will run as. Raises Misconfigured if this machine allows neither way.
    """
    if os.geteuid() != 0:
        return []
    refusals = []
    for prefix, uid, gid in _ways_down():
        _hand_over(directory, uid, gid)
        refusal = _refusal(prefix, binary, directory)
        if refusal is None:
            return list(prefix)
        refusals.append(f"{prefix[0]}: {refusal}")
    raise Misconfigured(
        f"{binary.name} must not run as root and could not be run as somebody else here ({'; '.join(refusals)}). "
        "Start `flashhold up` as an ordinary user, or set FLASHHOLD_REDIS_URL and FLASHHOLD_DATABASE_URL."
    )


@lru_cache(maxsize=1)
def _ways_down() -> list[tuple[Sequence[str], int, int]]:
    import pwd  # noqa: PLC0415  (absent on systems that have no root either)

    ways: list[tuple[Sequence[str], int, int]] = [(_UNSHARE, 0, 0)]
    for name in ("postgres", "nobody"):
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        words = tuple(word.format(uid=account.pw_uid, gid=account.pw_gid) for word in _SETPRIV)
        ways.append((words, account.pw_uid, account.pw_gid))
    return ways


def _hand_over(directory: Path, uid: int, gid: int) -> None:
    """Make a directory belong to whom its server runs as. Postgres insists; the way can change between starts."""
    if directory.stat().st_uid == uid:
        return
    for folder, _, files in os.walk(directory, topdown=False):
        for path in (*(Path(folder) / name for name in files), Path(folder)):
            os.chown(path, uid, gid, follow_symlinks=False)


def _refusal(prefix: Sequence[str], binary: Path, directory: Path) -> str | None:
    """None if somebody run through `prefix` can write to the directory and run the binary, else what went wrong."""
    probe = ["sh", "-c", ': > "$0/.probe" && rm "$0/.probe" && exec "$1" --version', str(directory), str(binary)]
    try:
        tried = subprocess.run([*prefix, *probe], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if tried.returncode == 0 else tried.stderr.strip() or f"status {tried.returncode}"

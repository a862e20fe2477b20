"""`flashhold up`: everything on one machine."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashhold.cli.reporting import say
from flashhold.cli.stores import DEFAULT_DATA_DIR, DataDir

if TYPE_CHECKING:
    from flashhold.embedded.supervisor import Stores

EXAMPLE = "Example: flashhold up --port 8000 --data-dir ./flashhold-data"


def up(
    host: Annotated[str, typer.Option(envvar="FLASHHOLD_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="FLASHHOLD_PORT", min=0, max=65535, help="TCP port; 0: a free one.")
    ] = 8000,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Start everything on this machine, a Redis-compatible server and Postgres included, and keep it running.

    Ctrl-C or SIGTERM stops it cleanly and keeps all data; the same command starts again on it, also after a crash.
    FLASHHOLD_REDIS_URL or FLASHHOLD_DATABASE_URL, if set, name a store to use instead of the embedded one.
    """
    from flashhold.embedded.supervisor import Up
    from flashhold.wiring import read_settings

    level = read_settings().durability  # a setting that makes no sense is to be found before anything is started
    data_dir = data_dir.absolute()

    def prepare(stores: "Stores") -> None:
        from flashhold.cli.first_start import prepare_stores

        prepare_stores(stores.redis_url, stores.database_url, data_dir / "admin.key")

    Up(
        data_dir=data_dir,
        host=host,
        port=port,
        environ=dict(os.environ),
        prepare=prepare,
        say=say,
        welcome=lambda url, stores: welcome(url, stores, data_dir, level),
    ).run()


def welcome(url: str, stores: "Stores", data_dir: Path, level: str) -> list[str]:
    """The line that says what is ready where, and three commands to try."""
    curl = f'curl -s {url}/v1/{{}} -H "Authorization: Bearer $KEY" -H "Content-Type: application/json"'
    key = '-H "Idempotency-Key: try-$RANDOM$RANDOM"'
    return [
        f"FlashHold is ready at {url} (key: {data_dir / 'admin.key'}; {stores.description}; durability: {level})",
        "Try it in another terminal: receive stock, hold a unit, sell it:",
        f"  KEY=$(cat {shlex.quote(str(data_dir / 'admin.key'))})",
        f"""  {curl.format("movements")} {key} -d '{{"type": "receipt", "sku": "mug", "quantity": 10}}'""",
        f"""  HOLD=$({curl.format("holds")} {key} -d '{{"lines": [{{"sku": "mug", "quantity": 1}}]}}' """
        """| grep -o 'hld_[A-Za-z0-9_-]*'); echo $HOLD""",
        f"""  {curl.format("holds/$HOLD/commit")} -d '{{"reference": "order-1"}}'""",
    ]

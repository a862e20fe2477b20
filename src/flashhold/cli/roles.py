"""`flashhold serve`, `worker` and `migrate`: one role a process, for real deployments."""

import os
from typing import Annotated

import typer

from flashhold.cli.reporting import print_json
from flashhold.cli.stores import DEFAULT_DATA_DIR, DataDir, Json, database_url, use_stores

SERVE_EXAMPLE = "Example: FLASHHOLD_REDIS_URL=redis://cache:6379/0 flashhold serve --host 0.0.0.0 --processes 4"
WORKER_EXAMPLE = "Example: FLASHHOLD_DATABASE_URL=postgresql://flashhold@db/flashhold flashhold worker"
MIGRATE_EXAMPLE = "Example: flashhold migrate --data-dir ./flashhold-data"


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (FLASHHOLD_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port (FLASHHOLD_PORT).")] = None,
    processes: Annotated[int | None, typer.Option(help="HTTP processes (FLASHHOLD_PROCESSES).")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Answer HTTP until SIGTERM; then finish what is in flight."""
    use_stores(data_dir)
    for name, value in (("HOST", host), ("PORT", port), ("PROCESSES", processes)):
        if value is not None:
            os.environ[f"FLASHHOLD_{name}"] = str(value)
    from flashhold.http.serve import run
    from flashhold.wiring import read_settings

    run(read_settings())


def worker(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Carry the journal into the ledger and expire holds, until SIGTERM; then finish the batch in hand."""
    use_stores(data_dir)
    from flashhold.wiring import read_settings
    from flashhold.worker import run

    run(read_settings())


def migrate(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Bring the ledger's tables to what this version needs. Any number of times, from any number of machines."""
    from flashhold.ledger import upgrade

    revision = upgrade(database_url(data_dir))
    if json:
        print_json({"revision": revision})
    else:
        typer.echo(f"The ledger is at revision {revision}.")

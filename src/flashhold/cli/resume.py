"""`flashhold resume`: a partition that was stopped, and whether it may go on."""

from typing import Annotated

import typer

from flashhold.cli.reporting import FINDINGS, print_json
from flashhold.cli.stores import DEFAULT_DATA_DIR, DataDir, Json, database_url, redis_url
from flashhold.engine.address import blocking_client

EXAMPLE = "Example: flashhold resume p00 --look"


def resume(
    partition: Annotated[str, typer.Argument(help="The partition, as the log's `partition-halted` names it.")],
    look: Annotated[bool, typer.Option("--look", help="Only say why it stopped and whether it could go on.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Let a partition go on that stopped because journal and ledger disagreed, once they don't any more.

    The journal is followed from the ledger's place to its end, and the ledger is asked whether it would take what comes
    next. While anything is wrong nothing is changed, and the status is 1.
    """

    from flashhold.engine.journal import Journal
    from flashhold.ledger.writer import LedgerWriter
    from flashhold.services.resume import resume as resume_partition

    ledger = database_url(data_dir)
    with blocking_client(redis_url(data_dir), partition) as client:
        writer = LedgerWriter(ledger, partition, holder="flashhold resume")
        try:
            found = resume_partition(Journal(client, partition), writer, look_only=look)
        finally:
            writer.close()
    if json:
        print_json(found._asdict())
    else:
        place = f"Partition {found.partition}, ledger at epoch {found.epoch}, seq {found.seq}"
        typer.echo(f"{place}: {f'stopped: {found.halted}' if found.halted else 'not stopped.'}")
        if found.cause:
            typer.echo(f"It cannot go on: {found.cause}")
        elif found.halted:
            behind = f"{found.entries} entries in {found.batches} batches" if found.entries else "nothing"
            then = "It goes on." if found.resumed else "It can go on."
            typer.echo(f"The journal holds {behind} behind that, and all of it follows. {then}")
    raise typer.Exit(FINDINGS if found.cause else 0)

"""`flashhold cluster plan`: how many partitions, and where."""

from typing import Annotated

import typer

from flashhold.cli.reporting import USAGE, print_json
from flashhold.cli.stores import Json
from flashhold.domain.places import PARTITIONS_MAX

app = typer.Typer(help="Redis Cluster: many partitions on many nodes.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """So that `plan` stays a word of its own, though it is the only one yet."""


@app.command(epilog="Example: flashhold cluster plan --nodes 3 --skus 5000")
def plan(
    nodes: Annotated[int, typer.Option(min=1, max=PARTITIONS_MAX, help="Primaries; their replicas do not count.")],
    skus: Annotated[int, typer.Option(min=1, help="SKUs on sale, now or later.")],
    partitions: Annotated[
        int | None, typer.Option(min=1, max=PARTITIONS_MAX, help="Their number, where it is chosen already.")
    ] = None,
    json: Json = False,
) -> None:
    """Say how many partitions a deployment should have, which slots to give each node, and what to set.

    Nothing is asked and nothing is changed. The number of partitions cannot be changed once there is data; that of the
    nodes can, any time: ask again with --partitions, and move the slots that change hands.
    """
    from flashhold.engine import layout

    try:
        made = layout.plan(nodes, skus, partitions)
    except ValueError as error:
        typer.echo(f"flashhold: {error}", err=True)
        raise typer.Exit(USAGE) from None
    if json:
        print_json(made.as_json())
        return
    typer.echo(f"{made.partitions} partitions on {nodes} nodes (skew {made.skew}; slots cut evenly: {made.skew_uncut})")
    for number, node in enumerate(made.nodes, 1):
        typer.echo(
            f"  node {number}  slots {node.first_slot:>5}-{node.last_slot:<5}  {len(node.partitions):>3} partitions: "
            f"{' '.join(node.partitions)}"
        )
    typer.echo(
        f"{skus} SKUs by their names: about {skus / made.partitions:.0f} a partition, the fullest about "
        f"{made.skus_a_partition_max}. One SKU, and all SKUs of one partition_key, are in one partition: no number of "
        "nodes makes a single one faster."
    )
    typer.echo("Set for every process, and never change it once there is data:")
    typer.echo(f"  FLASHHOLD_PARTITIONS={made.partitions}")
    typer.echo("  FLASHHOLD_REDIS_URL=redis+cluster://host:port,host:port,…")
    typer.echo("  FLASHHOLD_DURABILITY=replica   # a node may then be lost without losing an acknowledged hold")
    typer.echo(
        f"Connections: every API process {made.partitions} to Redis and 4 to Postgres; every worker "
        f"{3 * made.partitions} to Redis and up to {made.postgres_connections} to Postgres."
    )

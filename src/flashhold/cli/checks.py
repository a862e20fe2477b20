"""`flashhold doctor` and `flashhold audit`: what is unsafe, and what does not agree."""

import asyncio
from typing import TYPE_CHECKING

import typer

from flashhold.cli.reporting import FINDINGS, print_json
from flashhold.cli.stores import DEFAULT_DATA_DIR, DataDir, Json, database_url, redis_url

if TYPE_CHECKING:
    from flashhold.services.audit import Report

DOCTOR_EXAMPLE = "Example: flashhold doctor --data-dir ./flashhold-data --json"
AUDIT_EXAMPLE = "Example: flashhold audit --data-dir ./flashhold-data --json"


def doctor(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Check the stores' settings: a sentence for each that is unsafe."""
    from flashhold.services.store_check import check

    checked = check(redis_url(data_dir), database_url(data_dir))
    if json:
        print_json({"versions": checked.versions, "findings": [finding._asdict() for finding in checked.findings]})
    else:
        for finding in checked.findings:
            typer.echo(f"{finding.store}: {finding.setting} is {finding.value}. {finding.sentence}")
        stores = " and ".join(checked.versions.values())
        typer.echo(
            f"{stores}: {len(checked.findings) or 'no'} unsafe setting{'' if len(checked.findings) == 1 else 's'}."
        )
    raise typer.Exit(FINDINGS if checked.findings else 0)


def audit(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Prove that Redis' counters, the fold of the ledger and its balances are equal, and the chain unbroken; and that
    Redis has the holds, deadlines, remembered keys and buyers' shares of the ledger.

    May run while selling goes on: counters are read at one instant, and the ledger is folded up to that very place.
    Records are read page by page; what differs is looked at again before it counts.
    """
    report = asyncio.run(_audited(redis_url(data_dir), database_url(data_dir)))
    if json:
        print_json(report.as_json())
    else:
        for difference in report.differences:
            typer.echo(
                f"{difference.what}: {difference.where}: expected {difference.expected}, found {difference.found}"
            )
        if unlisted := report.difference_count - len(report.differences):
            typer.echo(f"… and {unlisted} more")
        typer.echo(
            f"Partition {report.partition} up to epoch {report.epoch}, seq {report.seq}: {report.entries} entries in "
            f"{report.batches} batches, {report.pools} pools, {report.holds} holds; {report.difference_count or 'no'} "
            f"difference{'' if report.difference_count == 1 else 's'} ({report.seconds:.1f} s)."
        )
    raise typer.Exit(0 if report.clean else FINDINGS)


async def _audited(redis_url: str, database_url: str) -> "Report":
    from flashhold.engine.durability import Durability
    from flashhold.engine.engine import Engine
    from flashhold.engine.options import EngineOptions
    from flashhold.services.audit import audit as audit_partition

    # An audit writes nothing, so it needs no durability, and must also be possible on a store that lacks it.
    async with await Engine.connect(redis_url, options=EngineOptions(durability=Durability.MEMORY)) as engine:
        return await audit_partition(engine, database_url)

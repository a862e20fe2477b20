"""`flashhold doctor` and `flashhold audit`: what is unsafe, and what does not agree."""

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from flashhold.cli.reporting import FINDINGS, print_json, status_of
from flashhold.cli.stores import DEFAULT_DATA_DIR, DataDir, Json, Partition, database_url, redis_url, use_stores
from flashhold.domain.errors import FlashHoldError

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


def audit(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False, partition: Partition = None) -> None:
    """Prove that Redis' counters, the fold of the ledger and its balances are equal, and the chain unbroken; and that
    Redis has the holds, deadlines, remembered keys and buyers' shares of the ledger.

    May run while selling goes on: counters are read at one instant, and the ledger is folded up to that very place.
    Records are read page by page; what differs is looked at again before it counts.
    """
    use_stores(data_dir)
    found = asyncio.run(_audited(partition))
    reports = [one for one in found.values() if not isinstance(one, FlashHoldError)]
    if len(found) == 1 and not reports:
        raise next(iter(found.values()))  # type: ignore[misc]  # it is no report, so it is an error
    if json:
        print_json(reports[0].as_json() if len(found) == 1 else _together(found))
    else:
        for name, one in found.items():
            if isinstance(one, FlashHoldError):
                typer.echo(f"Partition {name} could not be audited: {one}")
            else:
                _tell(one)
    raise typer.Exit(max(_status(one) for one in found.values()))


def _status(one: "Report | FlashHoldError") -> int:
    if isinstance(one, FlashHoldError):
        return status_of(one)
    return 0 if one.clean else FINDINGS


def _tell(report: "Report") -> None:
    for difference in report.differences:
        typer.echo(f"{difference.what}: {difference.where}: expected {difference.expected}, found {difference.found}")
    if unlisted := report.difference_count - len(report.differences):
        typer.echo(f"… and {unlisted} more")
    typer.echo(
        f"Partition {report.partition} up to epoch {report.epoch}, seq {report.seq}: {report.entries} entries in "
        f"{report.batches} batches, {report.pools} pools, {report.holds} holds; {report.difference_count or 'no'} "
        f"difference{'' if report.difference_count == 1 else 's'} ({report.seconds:.1f} s)."
    )


def _together(found: "Mapping[str, Report | FlashHoldError]") -> dict[str, Any]:
    """One object for all partitions: what adds up, and each partition's own report."""
    each: list[dict[str, Any]] = [
        {"partition": name, "clean": False, "error": str(one)} if isinstance(one, FlashHoldError) else one.as_json()
        for name, one in found.items()
    ]
    names = ("entries", "batches", "pools", "holds", "difference_count")
    sums = {name: sum(one.get(name, 0) for one in each) for name in names}
    return {"clean": all(one["clean"] for one in each), **sums, "partitions": each}


async def _audited(partition: str | None) -> "dict[str, Report | FlashHoldError]":
    """By partition its report, or why there is none."""
    from flashhold.engine.durability import Durability
    from flashhold.engine.engine import Engine
    from flashhold.services.audit import audit as audit_partition
    from flashhold.wiring import read_settings, stored_engine_options

    settings = read_settings()
    found: dict[str, Report | FlashHoldError] = {}
    for stored in stored_engine_options(settings, partition):
        # An audit writes nothing, so it needs no durability, and must also be possible on a store that lacks it.
        options = dataclasses.replace(stored, durability=Durability.MEMORY)
        try:
            async with await Engine.connect(settings.redis_url, options=options) as engine:
                found[stored.partition] = await audit_partition(engine, settings.database_url)
        except FlashHoldError as error:
            found[stored.partition] = error
    return found

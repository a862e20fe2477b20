"""`flashhold doctor` and `flashhold audit`: what is unsafe, and what does not agree."""

import typer

from flashhold.cli.reporting import FINDINGS, print_json
from flashhold.cli.stores import DEFAULT_DATA_DIR, DataDir, Json, database_url, redis_url

DOCTOR_EXAMPLE = "Example: flashhold doctor --data-dir ./flashhold-data --json"


def doctor(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Check the stores' settings: a sentence for each that is unsafe."""
    from flashhold.services.store_check import check  # noqa: PLC0415

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

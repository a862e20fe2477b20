"""`flashhold restore`: Redis rebuilt from the ledger."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flashhold.cli.reporting import FINDINGS, print_json
from flashhold.cli.stores import DEFAULT_DATA_DIR, DataDir, Json, Partition, use_stores

if TYPE_CHECKING:
    from flashhold.services.recovery import ByHand

EXAMPLE = "Example: flashhold restore --data-dir ./flashhold-data --yes"


def restore(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
    partition: Partition = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without, only say what is wrong and what would be done.")
    ] = False,
) -> None:
    """Rebuild Redis from the ledger under a new epoch: holds, counters, deadlines, limits and remembered keys.

    A worker does so by itself where the ledger has more than Redis. By hand it is for all else that `audit` finds:
    counters that somebody changed, another history, a journal that cannot be followed. Until it is done every request
    is answered 503 `recovering`. What only Redis' journal has is written down first; what cannot be is listed.

    Of several partitions those are rebuilt that lack something; one in which nothing is missing has to be named.
    """
    use_stores(data_dir)
    from flashhold.services.recovery import restore_by_hand
    from flashhold.telemetry import configure_logging
    from flashhold.wiring import read_settings, stored_engine_options

    settings = read_settings()
    configure_logging(settings.log_level, settings.log_format)  # to standard error: a report stands alone
    urls = (settings.redis_url, settings.database_url)
    every = stored_engine_options(settings, partition)
    named = len(every) == 1
    came = {one.partition: restore_by_hand(*urls, one, leave=yes, also_whole=named) for one in every}
    if json:
        reports = {name: {"partition": name, **_as_json(one)} for name, one in came.items()}
        print_json(reports[every[0].partition] if named else {"partitions": list(reports.values())})
    else:
        for name, one in came.items():
            for line in _sentences(one) if named or one.finding.why != "whole" else [f"{one.finding.sentence}."]:
                typer.echo(line if named else f"{name}: {line}")
    raise typer.Exit(max(_status(one) for one in came.values()))


def _status(came: "ByHand") -> int:
    done = came.restored
    if done is None:
        return 0 if came.finding.why == "whole" else FINDINGS
    return FINDINGS if done.place is None or done.missing or done.dropped else 0


def _as_json(came: "ByHand") -> dict[str, Any]:
    found = {"found": str(came.finding.why), "sentence": came.finding.sentence}
    return {**found, "restored": False, **(came.restored.as_json() if came.restored else {})}


def _sentences(came: "ByHand") -> list[str]:
    done = came.restored
    found = f"{came.finding.sentence}."
    if done is None:
        here = came.finding.cursor
        return [
            found,
            f"`flashhold restore --yes` closes the partition (503 recovering), lets the ledger take in what the "
            f"journal has, and rebuilds Redis from the ledger under epoch {here.epoch + 1}.",
        ]
    if done.place is None:
        return [found, "Another process was restoring it at this moment; look again."]
    said = [
        found,
        f"Restored from the ledger at epoch {done.after.epoch}, seq {done.after.seq}: {done.holds_live} live holds, "
        f"{done.holds_ended} that have ended, {done.answers} answers, {done.pools} pools. It goes on at epoch "
        f"{done.place.epoch}, seq {done.place.seq} ({done.seconds:.1f} s).",
    ]
    if done.missing:
        promised = (
            "nobody had been told that they are kept"
            if done.level in ("memory", "ledger")
            else f"they were acknowledged at level {done.level}"
        )
        said.append(
            f"Missing: {done.missing.entries} entries, seq {done.missing.first_seq} to {done.missing.last_seq} of "
            f"epoch {done.missing.epoch}, which Redis had shown and the ledger had not yet; {promised}."
        )
    said += [f"Given up, because it cannot follow the ledger: {batch}." for batch in done.dropped]
    return said

"""`flashhold rehearse` as the command line knows it. Light to import: what plays and draws is loaded when it runs."""

import os
from pathlib import Path
from typing import Annotated

import typer

EXIT_USAGE = 2
EPILOG = "Example: flashhold rehearse online_retail.csv.gz --stock-ratio 0.8 --report rehearsal.html"


def command(
    file: Annotated[Path, typer.Argument(help="UCI 'Online Retail' CSV or event CSV, plain or gzipped.")],
    *,
    url: Annotated[str, typer.Option(envvar="FLASHHOLD_URL", help="Where the API is.")] = "http://127.0.0.1:8000",
    data_dir: Annotated[
        Path, typer.Option(envvar="FLASHHOLD_DATA_DIR", help="Beside an `up`: its data directory, for its admin key.")
    ] = Path("flashhold-data"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    speed_up: Annotated[
        float | None, typer.Option(help="Keep the recorded times, this many times faster; without it, full speed.")
    ] = None,
    stock_ratio: Annotated[
        float, typer.Option(help="Opening stock ÷ units that leave; below 1 rehearses scarcity.")
    ] = 1.0,
    connections: Annotated[int, typer.Option(min=2, max=1000, help="Requests under way at a time.")] = 48,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report with pictures to this file.")] = None,
    limit_rows: Annotated[int | None, typer.Option(min=1, help="Play only the first rows.")] = None,
    pool: Annotated[str, typer.Option(help="The pool to play in; one of its own keeps live stock apart.")] = "default",
    run: Annotated[
        str | None, typer.Option(help="Take up this run again (its name was printed); by default a fresh one.")
    ] = None,
) -> None:
    """Play recorded orders through the running system, then compare file = Redis = ledger, unit by unit.

    Exit status: 0 everything agrees, 1 differences or oversold units, 2 usage, 3 the API can't be reached.
    """
    # The pictures alone cost a second of imports, which every other command and --help would pay.
    from flashhold.rehearse import console
    from flashhold.rehearse.rehearsal import Options

    if stock_ratio <= 0 or (speed_up is not None and speed_up <= 0):
        raise typer.BadParameter("--stock-ratio and --speed-up must be above 0")
    if report is not None and not report.absolute().parent.is_dir():
        raise typer.BadParameter(f"the directory of {report} does not exist")
    options = Options(stock_ratio, connections, speed_up, limit_rows, run, pool)
    raise typer.Exit(console.run(file, url, _api_key(data_dir), options, report=report, as_json=as_json))


def _api_key(data_dir: Path) -> str:
    """From the environment, else the admin key that `up` wrote."""
    if key := os.environ.get("FLASHHOLD_API_KEY", "").strip():
        return key
    admin_key = data_dir / "admin.key"
    try:
        return admin_key.read_text().strip()
    except OSError as error:
        typer.echo(f"No API key: FLASHHOLD_API_KEY is not set, and {admin_key}: {error.strerror}", err=True)
        raise typer.Exit(EXIT_USAGE) from error

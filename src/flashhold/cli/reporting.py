"""What commands print and how they end."""

import json
import sys
from typing import Any

import typer

from flashhold.domain.errors import FlashHoldError, LedgerUnavailable, StoreUnavailable

FINDINGS, USAGE, UNREACHABLE = 1, 2, 3


def say(line: str) -> None:
    """Print one line now, also where standard output is a pipe or a file."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # Who read our lines has gone; that is no reason to take a shop down.
        sys.stdout = sys.stderr


def print_json(report: dict[str, Any]) -> None:
    """The one JSON object of a `--json` run."""
    typer.echo(json.dumps(report, ensure_ascii=False))


def report_failure(error: FlashHoldError, *, as_json: bool) -> int:
    """Say why a command could not do its work; its exit status."""
    if as_json:
        print_json({"error": str(error)})
    typer.echo(f"flashhold: {error}", err=True)
    return status_of(error)


def status_of(error: FlashHoldError) -> int:
    """The exit status of a command that ends so."""
    return UNREACHABLE if isinstance(error, StoreUnavailable | LedgerUnavailable) else FINDINGS

"""A rehearsal in a terminal: progress on standard error, the outcome on standard output, an exit status."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flashhold.rehearse.client import ApiUnreachable, KeyRefused
from flashhold.rehearse.ledger import LedgerUnreadable
from flashhold.rehearse.rehearsal import Options, Watch, fresh_run, rehearse
from flashhold.rehearse.report import write_report
from flashhold.rehearse.summary import print_summary

EXIT_CLEAN, EXIT_DIFFERENCES, EXIT_USAGE, EXIT_UNREACHABLE = 0, 1, 2, 3
EXIT_INTERRUPTED = 130


def run(file: Path, url: str, key: str, options: Options, *, report: Path | None, as_json: bool) -> int:
    """Rehearse, report, and return the exit status."""
    options = replace(options, run=options.run or fresh_run())
    try:
        with _progress() as watch:
            result = rehearse(file, url, key, options, watch)
        if report is not None:
            write_report(result, report)
    except (ApiUnreachable, LedgerUnreadable) as error:
        print(f"{error}\nTo go on with this run: --run {options.run}", file=sys.stderr)
        return EXIT_UNREACHABLE
    except KeyboardInterrupt:
        print(f"Interrupted. To go on with this run: --run {options.run}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (KeyRefused, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    if as_json:
        print(json.dumps(result.as_json()))
    else:
        print_summary(result, Console())
        if report is not None:
            print(f"Report: {report}")
    return EXIT_CLEAN if result.clean else EXIT_DIFFERENCES


@contextmanager
def _progress() -> Iterator[Watch]:
    """A bar for the stage that is on; nothing where standard error is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    terminal = Console(stderr=True)
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def watch(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    progress.update(task, visible=False)
                tasks[stage] = progress.add_task(stage)
            progress.update(tasks[stage], completed=done, total=total or None)

        yield watch

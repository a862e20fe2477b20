"""The `flashhold` command. Exit status: 0 clean, 1 findings or refused, 2 usage, 3 a store or the API can't be reached.

Commands import what they need when they run, so that `--help` and errors of usage are quick.
"""

import sys

import typer

from flashhold.cli import checks, cluster, keys, restore, resume, roles, up
from flashhold.cli.reporting import report_failure
from flashhold.domain.errors import FlashHoldError
from flashhold.rehearse import command as rehearse

__all__ = ["app", "main"]

app = typer.Typer(
    help="FlashHold sells the last unit exactly once. `flashhold up` starts everything on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command(epilog=up.EXAMPLE)(up.up)
app.command(epilog=roles.SERVE_EXAMPLE)(roles.serve)
app.command(epilog=roles.WORKER_EXAMPLE)(roles.worker)
app.command(epilog=roles.MIGRATE_EXAMPLE)(roles.migrate)
app.add_typer(keys.app, name="keys")
app.command(epilog=checks.DOCTOR_EXAMPLE)(checks.doctor)
app.command(epilog=checks.AUDIT_EXAMPLE)(checks.audit)
app.command(epilog=restore.EXAMPLE)(restore.restore)
app.command(epilog=resume.EXAMPLE)(resume.resume)
app.add_typer(cluster.app, name="cluster")
app.command("rehearse", epilog=rehearse.EPILOG)(rehearse.command)


def main() -> None:
    """Run the command line of this process and exit."""
    try:
        app()
    except FlashHoldError as error:
        sys.exit(report_failure(error, as_json="--json" in sys.argv))

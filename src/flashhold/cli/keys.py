"""`flashhold keys`: make, list and revoke API keys, in the ledger's table of them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flashhold.cli.reporting import FINDINGS, print_json
from flashhold.cli.stores import DEFAULT_DATA_DIR, DataDir, Json, database_url
from flashhold.domain.instants import milliseconds, rfc3339

if TYPE_CHECKING:
    from flashhold.ledger.api_keys import KeyListed

app = typer.Typer(help="API keys: make, list, revoke.", no_args_is_help=True)

_SCOPE_HELP = "holds, stock, read or admin (which implies the others); may be given several times."


@app.command(epilog="Example: flashhold keys create --scope holds --scope read --name web-shop")
def create(
    scope: Annotated[list[str], typer.Option(help=_SCOPE_HELP)],
    name: Annotated[str, typer.Option(help="What it is for, to know it again in the list.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Make a key. It is shown this once: the ledger keeps only its hash."""
    from flashhold.ledger import api_keys

    if unknown := sorted(set(scope) - set(api_keys.SCOPES)):
        raise typer.BadParameter(f"no such scope: {', '.join(unknown)}", param_hint="--scope")
    key = api_keys.new_key()
    api_keys.register(database_url(data_dir), key, scope, name)
    if json:
        print_json({"id": api_keys.key_id(key), "key": key, "scopes": sorted(set(scope))})
    else:
        typer.echo(key)


@app.command("list", epilog="Example: flashhold keys list --json")
def list_keys(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """List all keys, revoked ones too; never their secrets."""
    from flashhold.ledger import api_keys

    rows = [_shown(row) for row in api_keys.listed(database_url(data_dir))]
    if json:
        print_json({"keys": rows})
        return
    for row in rows:
        state = f"revoked {row['revoked_at']}" if row["revoked_at"] else "valid"
        typer.echo(f"{row['id']}  {','.join(row['scopes']):<20}  {row['created_at']}  {state}  {row['name']}".rstrip())


@app.command(epilog="Example: flashhold keys revoke 3f9c01d2ab45")
def revoke(
    id: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Shut a key out; within 5 s no process takes it any more."""
    from flashhold.ledger import api_keys

    found = api_keys.revoke(database_url(data_dir), id)
    if json:
        print_json({"id": id, "revoked": found})
    else:
        typer.echo(f"Key {id} is revoked." if found else f"There is no key {id}.")
    if not found:
        raise typer.Exit(FINDINGS)


def _shown(row: "KeyListed") -> dict[str, Any]:
    """A row of the list with its times as the API writes them."""
    times = {name: getattr(row, name) for name in ("created_at", "revoked_at")}
    return row._asdict() | {name: rfc3339(milliseconds(at)) if at else None for name, at in times.items()}

"""Fills the tables of docs/reference/ from the code: `python docs/generate.py`, or `make docs`.

A page is written by hand but for what stands between `<!-- made: name -->` and `<!-- /made -->`. What the code says is
taken from it; where a table needs words that it does not have, they stand here, keyed by the code's own names, and a
name that is missing or has gone ends the run. A test holds the pages on disk to what this makes.
"""

import ast
import inspect
import re
import sys
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from fastapi import APIRouter
from fastapi.params import Depends
from prometheus_client import CollectorRegistry
from typer.models import ArgumentInfo, OptionInfo

from flashhold import cli
from flashhold.domain.entries import BUCKETS, KINDS
from flashhold.domain.lifecycle import LIFECYCLE, VERBS, Cell
from flashhold.domain.model import HoldState
from flashhold.domain.reasons import TRANSIENT, Reason
from flashhold.engine import keys
from flashhold.engine.options import EngineOptions
from flashhold.http import auth, problems, routes
from flashhold.http.verbs import VERBS as HTTP_VERBS
from flashhold.services.gauges import WorkerGauges
from flashhold.settings import Settings
from flashhold.telemetry import HttpMetrics

REFERENCE = Path(__file__).parent / "reference"
REGION = re.compile(r"(<!-- made: ([a-z-]+) -->\n).*?(<!-- /made -->)", re.DOTALL)

BUCKET_WORDS = {
    "outside": "everywhere else: suppliers, buyers, what is missing; the other side of whatever comes or goes",
    "available": "on hand and promised to nobody",
    "held": "on hand, under live holds",
    "committed": "on hand, sold, not yet shipped",
    "damaged": "no longer sellable, not on hand",
    "in_transit": "on the way between places; nothing moves units here yet",
}

ENTRY_KINDS: dict[str, tuple[str, str]] = {
    "hold": ("available → held", "a claim, all lines in one entry; `expires_at` is its deadline"),
    "commit": (
        "held → committed; what is not sold held → available",
        "a hold sold. A late payment on an expired hold (`if_expired: reacquire`) is one `commit` with two steps: "
        "available → held, held → committed",
    ),
    "release": ("held → available", "a hold given back by its owner"),
    "expire": ("held → available", "a hold past its deadline, taken back by the sweeper or by who needed the units"),
    "extend": ("none", "a hold's deadline moved; `expires_at` is the new one"),
    "amend": ("available ↔ held", "a hold's lines changed"),
    "receipt": ("outside → available", "units came in; makes an unknown SKU known"),
    "shipment": ("committed → outside", "sold units left"),
    "return": ("outside → available", "sold units came back"),
    "damage": ("available → damaged", "units on hand that can no longer be sold"),
    "adjustment": ("outside ↔ available", "a count found more, or less; with a reason"),
    "transfer": ("available → available of another pool", "units given to another pool of the SKU"),
    "cancel": ("committed → available", "a sale undone before it was shipped"),
    "policy": (
        "none",
        "a SKU's rules changed; reason `buyers-counted`: what buyers had before its first limit is counted now",
    ),
    "restore": (
        "none",
        "Redis rebuilt from the ledger: the first entry of its epoch; `details` say what is missing",
    ),
}

UNITS = (  # by the end of the name; the first that fits
    ("_seconds", "seconds"), ("_seconds_max", "seconds"), ("_ms", "milliseconds"), ("_hours", "hours"),
    ("bytes_max", "bytes"), ("headers_max", "header lines"), ("connections_max", "connections"),
    ("waiting_max", "commands"), ("batch_size_max", "commands"),
    ("in_flight_max", "batches"), ("port", "TCP port"), ("processes", "processes"), ("partitions", "partitions"),
    ("_url", "URL"), ("_dir", "directory"), ("host", "address"),
)  # fmt: skip

OTHER_VARIABLES = {
    "FLASHHOLD_URL": "Where commands that speak to the API find it (`http://127.0.0.1:8000`).",
    "FLASHHOLD_API_KEY": "The key that such commands send; without it, `admin.key` of the data directory.",
    "PROMETHEUS_MULTIPROC_DIR": "Where HTTP processes keep their shared figures; `serve` makes one for itself.",
}


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; a bar within a cell is escaped."""
    lines = [list(heads), *[list(row) for row in rows]]
    text = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(lines[0]), *text[1:]]) + "\n"


def same_names(what: str, words: Iterable[str], code: Iterable[str]) -> None:
    """Ends the run where prose and code name different things."""
    if set(words) != set(code):
        raise SystemExit(f"docs/generate.py and the code differ in {what}: {sorted(set(words) ^ set(code))}")


def settings() -> str:
    """Every FLASHHOLD_* variable of `Settings`."""
    stored = {name.removesuffix("_ms") for name in EngineOptions().shared()}
    rows = []
    for name, field in Settings.model_fields.items():
        unit = next((unit for end, unit in UNITS if name.endswith(end)), "")
        choices = [f"`{value}`" for value in typing.get_args(field.annotation) if isinstance(value, str)]
        if not unit and not choices and field.annotation is not bool:
            raise SystemExit(f"docs/generate.py knows no unit for the setting {name}")
        words = field.description or ""
        shared = "yes" if words.endswith("Shared.") else ""
        if re.sub(r"_(seconds|hours)", "", name) in stored:
            shared = "stored"
        default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        kind = unit or " or ".join(choices) or "`true` or `false`"
        reason = words.removesuffix("Shared.").strip()
        rows.append([f"`FLASHHOLD_{name.upper()}`", kind, f"`{default}`", shared, reason])
    if sum(row[3] == "stored" for row in rows) != len(stored):
        raise SystemExit(f"docs/generate.py does not find the stored settings {sorted(stored)}")
    return table(["variable", "unit or values", "default", "shared", "what it is, and why this default"], rows)


def other_variables() -> str:
    """What is read from the environment beside the settings."""
    return table(["variable", "meaning"], [[f"`{name}`", words] for name, words in OTHER_VARIABLES.items()])


def problem_codes() -> str:
    """Every code that the API can answer."""
    rows = []
    for code, kind in problems.KINDS.items():
        reason = Reason(code) if code in set(Reason) else None
        sticks = "" if reason is None else "no" if reason in TRANSIENT else "yes"
        members = ", ".join(f"`{name}`" for name in problems.SPECIFIC_MEMBERS.get(code, ()))
        rows.append([str(kind.status), f"`{code}`", kind.detail, members, sticks])
    return table(["status", "code", "meaning", "members of its own", "sticks to the key"], rows)


def buckets() -> str:
    """Where units can be."""
    same_names("buckets", BUCKET_WORDS, BUCKETS)
    return table(["bucket", "units that are"], [[f"`{name}`", BUCKET_WORDS[name]] for name in BUCKETS])


def kinds() -> str:
    """Kinds of ledger entries and what they move."""
    same_names("kinds of entries", ENTRY_KINDS, KINDS)
    return table(["kind", "moves", "when"], [[f"`{kind}`", *ENTRY_KINDS[kind]] for kind in KINDS])


def lifecycle_diagram() -> str:
    """What changes a hold's state, as a Mermaid diagram."""
    arrows: dict[tuple[HoldState, HoldState], list[str]] = {}
    for (state, verb), cell in LIFECYCLE.items():
        stays = state == cell.to and state != HoldState.HELD
        alike = state == HoldState.HELD and verb in ("commit otherwise", "commit, reacquire")
        if cell.to is not None and not cell.replayed and not stays and not alike:
            arrows.setdefault((state, cell.to), []).append(verb)
    drawn = [f"    {a.label} --> {b.label}: {' / '.join(verbs)}\n" for (a, b), verbs in arrows.items()]
    return "```mermaid\nstateDiagram-v2\n    direction LR\n    [*] --> held: hold\n" + "".join(drawn) + "```\n"


def _said(cell: Cell) -> str:
    if cell.refused:
        return f"409 `{cell.refused.value}`"
    to = "" if cell.to is None else cell.to.label
    return f"{to} (replayed)" if cell.replayed else to


def lifecycle_cells() -> str:
    """What each verb does in each state."""
    states = list(HoldState)
    rows = [[f"**{verb}**", *[_said(LIFECYCLE[state, verb]) for state in states]] for verb in VERBS]
    return table(["verb ↓, state →", *[state.label for state in states]], rows)


def _metrics(registry: CollectorRegistry, labels: Mapping[str, str]) -> str:
    rows = [
        [f"`{family.name}{'_total' if family.type == 'counter' else ''}`", family.type, labels.get(family.name, ""),
         family.documentation]
        for family in registry.collect()
    ]  # fmt: skip
    return table(["metric", "type", "labels", "meaning"], rows)


def api_metrics() -> str:
    """What /metrics shows."""
    return _metrics(HttpMetrics().registry, {"flashhold_http_request_seconds": "`route`, `status`"})


def worker_metrics() -> str:
    """What the worker's port shows."""
    return _metrics(WorkerGauges().registry, {"flashhold_worker_failures": "`store`"})


def _scopes(bits: int) -> str:
    return ", ".join(f"`{name}`" for name, scope in auth.NAMES.items() if bits & scope and name != "admin")


def _scopes_of_read(endpoint: Any) -> str:
    for parameter in inspect.signature(endpoint).parameters.values():
        for note in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(note, Depends):
                return _scopes(inspect.getclosurevars(cast(Any, note.dependency)).nonlocals["scopes"])
    raise SystemExit(f"{endpoint} asks for no scope")


def _routes() -> list[tuple[str, Any]]:
    router = APIRouter()
    routes.add(router, cast(Any, None))  # they are described here, never called
    found: list[Any] = list(router.routes)
    return [(f"`{next(iter(route.methods))} {route.path.replace(':sku}', '}')}`", route) for route in found]


_HTTP_VERBS = {verb.name: verb for verb in HTTP_VERBS}


def http_verbs() -> str:
    """Routes that change something."""
    rows = []
    for path, route in _routes():
        if verb := _HTTP_VERBS.get(route.name):
            statuses = " or ".join(map(str, verb.statuses))
            refusals = ", ".join(f"`{code}`" for code in verb.refusals)
            key = "required" if verb.key_required else "optional"
            rows.append([path, route.openapi_extra["summary"], _scopes(verb.needs), key, statuses, refusals])
    return table(["route", "", "scope", "`Idempotency-Key`", "answers", "may refuse"], rows)


def http_reads() -> str:
    """Routes that only read."""
    rows = [
        [path, route.summary, _scopes_of_read(route.endpoint)]
        for path, route in _routes()
        if route.name not in _HTTP_VERBS
    ]
    return table(["route", "", "scope: one of"], rows)


def _parameters(function: Any) -> list[list[str]]:
    rows = []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        notes = getattr(parameter.annotation, "__metadata__", ())
        info = next(note for note in notes if isinstance(note, OptionInfo | ArgumentInfo))
        declared = info.default if isinstance(info.default, str) else ""  # an Annotated option's own name
        option = declared or "--" + name.replace("_", "-")
        default = "" if parameter.default in (None, False, "") else f"`{parameter.default}`"
        rows.append([
            f"`{name.upper() if isinstance(info, ArgumentInfo) else option}`", info.help or "",
            "required" if parameter.default is inspect.Parameter.empty else default,
            f"`{info.envvar}`" if info.envvar else "",
        ])  # fmt: skip
    return rows


def _command(path: str, function: Any, epilog: str | None) -> str:
    words = inspect.cleandoc(function.__doc__ or "")
    options = table(["", "meaning", "default", "variable"], _parameters(function))
    return f"## `{path}`\n\n{words}\n\n{options}\n```console\n$ {(epilog or '').removeprefix('Example: ')}\n```\n"


def commands() -> str:
    """What `--help` says of every command."""
    found: list[tuple[str, Any]] = [("flashhold", one) for one in cli.app.registered_commands]
    for group in cli.app.registered_groups:
        inside = cast(Any, group.typer_instance).registered_commands
        found += [(f"flashhold {group.name}", one) for one in inside]
    return "\n".join(
        _command(f"{path} {one.name or one.callback.__name__}", one.callback, one.epilog) for path, one in found
    )


def redis_keys() -> str:
    """Every key of a partition: the sentences under the fields of `engine.keys.Keys`."""
    classes = [node for node in ast.parse(inspect.getsource(keys)).body if isinstance(node, ast.ClassDef)]
    body = next(one.body for one in classes if one.name == "Keys")
    rows = []
    for field, words in zip(body[1::2], body[2::2], strict=True):
        assert isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        assert isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant)
        rows.append([f"`{getattr(keys.partition_keys('p00'), field.target.id)}`", str(words.value.value)])
    return table(["key", "holds"], rows)


REGIONS = {
    make.__name__.replace("_", "-"): make
    for make in (
        settings, other_variables, problem_codes, buckets, kinds, lifecycle_diagram, lifecycle_cells, api_metrics,
        worker_metrics, http_verbs, http_reads, commands, redis_keys,
    )
}  # fmt: skip


def filled(text: str) -> str:
    """The page with all its regions as the code has them now."""
    return REGION.sub(lambda region: f"{region[1]}\n{REGIONS[region[2]]()}\n{region[3]}", text)


if __name__ == "__main__":
    for page in sorted(REFERENCE.glob("*.md")):
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
        sys.stdout.write(f"{page}\n")

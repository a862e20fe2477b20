"""The HTML report: one file, nothing loaded from anywhere."""

from importlib.resources import files
from pathlib import Path

import jinja2

from flashhold.rehearse import words
from flashhold.rehearse.pictures import pictures
from flashhold.rehearse.result import Result

_DIFFERENCES_SHOWN_MAX = 200
_VERBS = ("hold", "commit", "release", "shipment", "receipt", "return", "damage", "adjustment", "stock", "ledger")

BUCKET_MEANS = {
    "outside": "the world: suppliers, customers, corrections",
    "available": "on the shelf, promised to nobody",
    "held": "claimed by carts",
    "committed": "sold, not yet shipped",
    "damaged": "spoilt",
    "in_transit": "between places",
}


def write_report(result: Result, path: Path) -> None:
    """Write the report to `path`, replacing what is there. Raises OSError."""
    path.write_text(render(result), encoding="utf-8")


def render(result: Result) -> str:
    """The report as HTML text."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = words.number
    environment.filters["duration"] = words.duration
    source = files("flashhold.rehearse").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        result=result,
        units=result.played.units,
        settled=result.settled,
        seconds=result.seconds,
        verdict=words.verdict(result),
        explanation=words.explanation(result),
        stock_mode=words.stock_mode(result),
        class_means=words.CLASS_MEANS,
        bucket_means=BUCKET_MEANS,
        pictures=pictures(result),
        latencies=[(verb, figures) for verb in _VERBS if (figures := result.latency_ms(verb))],
        differences=result.settled.differences[:_DIFFERENCES_SHOWN_MAX],
        repeats=dict(result.tally.repeats),
    )

"""The report and the summary: whole, self-contained, and safe whatever the names are."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from flashhold.rehearse.plan import build
from flashhold.rehearse.reader import EVENT_HEADER, read
from flashhold.rehearse.report import render, write_report
from flashhold.rehearse.summary import print_summary
from flashhold.rehearse.words import duration
from tests.rehearse.runs import Outcome

pytestmark = pytest.mark.quick


class _Ids(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                self.loads.append(f"{tag} {value}")


def test_a_clean_run(small_file: Path) -> None:
    """The verdict, the figures, the pictures; nothing is loaded from elsewhere, and no id stands twice."""
    html = render(Outcome(build(read(small_file), 0.8)).result())
    assert "<h1>Every unit accounted for</h1>" in html
    pictures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(pictures) == 5
    for picture in pictures:
        ElementTree.fromstring(picture)
    page = _Ids()
    page.feed(html)
    assert page.loads == []
    assert len(page.ids) == len(set(page.ids))


def test_full_stock_has_no_picture_of_scarcity(small_file: Path) -> None:
    """A picture without figures is left out."""
    html = render(Outcome(build(read(small_file))).result())
    assert html.count("<svg") == 4
    assert "What ran short" not in html


def test_names_are_text(tmp_path: Path) -> None:
    """A SKU that looks like markup or a formula is shown as it is, in the table and in the pictures."""
    path = tmp_path / "<b>.csv"
    name = "<script>alert(1)</script>$x^2$"
    path.write_text(f"{EVENT_HEADER}\n,receipt,,{name},1,,\n,sale,o,{name},2,,\n,sale,p,[red]b,1,,\n")
    outcome = Outcome(build(read(path)))
    outcome.stock[name].on_hand += 1
    html = render(outcome.result())
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;$x^2$" in html
    out = io.StringIO()
    print_summary(outcome.result(), Console(file=out, width=200))
    assert name in out.getvalue()


def test_differences_are_shown(small_file: Path, tmp_path: Path) -> None:
    """A difference changes the verdict and stands in a table of its own."""
    outcome = Outcome(build(read(small_file)))
    outcome.stock["a:b"].held += 2
    outcome.fold.entries_of_others.append("p00/1/4711 receipt: a:b available +1")
    write_report(outcome.result(), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "<h1>2 differences</h1>" in html
    assert "Somebody else was there" in html
    out = io.StringIO()
    print_summary(outcome.result(), Console(file=out, width=100))
    assert "2 differences" in out.getvalue()
    assert "p00/1/4711 receipt" in out.getvalue()


def test_json(small_file: Path) -> None:
    """The object has the contract's members, its classes add up to its rows, and it is JSON."""
    outcome = Outcome(build(read(small_file), 0.8))
    outcome.stock["a:b"].on_hand -= 1
    told = json.loads(json.dumps(outcome.result().as_json()))
    assert sum(told["rows_by_class"].values()) == told["rows"] == len(list(read(small_file)))
    assert told["orders"] == sum(1 for _ in outcome.plan.carts)
    assert told["units_held"] == told["units_committed"] == told["units_shipped"] > 0
    assert told["refused"] == told["refused_expected"] > 0
    assert (told["differences"], told["oversold_units"]) == (1, 0)
    assert told["differing_figures"][0]["sku"] == "a:b"
    assert told["seconds"] == 76
    assert told["latencies_ms"]["hold"] == {"count": 400, "p50": 25.0, "p95": 48.0, "p99": 50.0, "max": 50.0}


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s")]
)
def test_duration(seconds: float, said: str) -> None:
    """Seconds as they are said."""
    assert duration(seconds) == said

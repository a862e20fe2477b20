"""The report's pictures: matplotlib drawings as inline SVG, light, in the page's own fonts."""

import io
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import matplotlib as mpl
import matplotlib.dates as mdates
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from flashhold.rehearse.plan import Cart
from flashhold.rehearse.result import Result
from flashhold.rehearse.words import MINUS

INK, MUTED, GRID = "#20242c", "#667085", "#e4e7ec"
TEAL, BLUE, AMBER, RED, SLATE = "#0f766e", "#3b6fb6", "#c98a1b", "#b5432f", "#94a3b8"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, and set in the page's font
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Segoe UI", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.0,
    "legend.handleheight": 0.8,
}
_SPARE_IDS = re.compile(
    r' id="(?:figure|axes|patch|text|line2d|legend|matplotlib\.axis|xtick|ytick|\w+Collection)_\d+"'
)
_WIDTH_IN = 10.0


def pictures(result: Result) -> dict[str, str]:
    """Name → SVG element. A picture for which the run has no figures is absent."""
    drawn = {
        "units": _draw(_units, result, 3.1),
        "calendar": _draw(_calendar, result, 3.2),
        "throughput": _draw(_throughput, result, 2.9),
        "latency": _draw(_latency, result, 3.1),
        "scarce": _draw(_scarce, result, 3.6),
    }
    return {name: svg for name, svg in drawn.items() if svg is not None}


def _draw(draw: Callable[[Axes, Result], bool], result: Result, height_in: float) -> str | None:
    with mpl.rc_context(_STYLE | {"svg.hashsalt": draw.__name__}):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        axes = figure.add_subplot()
        if not draw(axes, result):
            return None
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r'<svg role="img" \1', svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", svg, count=1)
    # Ids must be unique in the page, and only the clip paths' and markers' are referred to.
    return _SPARE_IDS.sub("", svg)


def _thousands(value: float, _position: int = 0) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if abs(value) >= 1e4 else f"{value:,.0f}"


def _units(axes: Axes, result: Result) -> bool:
    """Where the units came from and went: each bar begins where the one before ended."""
    units = result.played.units
    steps = [
        ("received", units["received"], TEAL),
        ("returned", units["returned"], TEAL),
        ("found", units["adjusted_up"], TEAL),
        ("sold and shipped", -units["shipped"], BLUE),
        ("damaged", -units["damaged"], RED),
        ("written off", -units["adjusted_down"], AMBER),
    ]
    level = 0
    for row, (_, change, color) in enumerate(steps):
        axes.barh(row, change, left=level, color=color, height=0.62)
        level += change
        right = max(level, level - change)
        axes.annotate(
            f"{change:+,d}".replace("-", MINUS), (right, row), xytext=(6, 0), textcoords="offset points", va="center"
        )
    axes.barh(len(steps), level, color=INK, height=0.62)
    axes.annotate(f"{level:,d}", (level, len(steps)), xytext=(6, 0), textcoords="offset points", va="center")
    _name_bars(axes, [*(name for name, *_ in steps), "left in stock"], "units")
    return True


def _calendar(axes: Axes, result: Result) -> bool:
    """The recorded time: units ordered each week, granted and refused."""
    granted: Counter[datetime] = Counter()
    refused: Counter[datetime] = Counter()
    for index, event in enumerate(result.plan.events):
        if not isinstance(event, Cart) or event.at_s is None:
            continue
        day = datetime.fromtimestamp(event.at_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        week = day - timedelta(days=day.weekday())
        for part, lines in enumerate(event.holds):
            target = refused if (index, part) in result.played.refused_holds else granted
            target[week] += sum(line.quantity for line in lines)
    weeks = sorted(granted.keys() | refused.keys())
    if len(weeks) < 2:
        return False
    bottom = [granted[week] for week in weeks]
    axes.bar(mdates.date2num(weeks), bottom, width=5.6, align="edge", color=BLUE, label="held and sold")
    if refused:
        top = [refused[week] for week in weeks]
        axes.bar(
            mdates.date2num(weeks),
            top,
            bottom=bottom,
            width=5.6,
            align="edge",
            color=AMBER,
            label="refused for want of stock",
        )
        axes.legend(loc="upper left", ncols=2)
    locator = mdates.AutoDateLocator(minticks=4, maxticks=12)
    axes.xaxis_date()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("units a week")
    axes.margins(x=0.01)
    return True


_BANDS = (
    ("shipment", ("shipment",), BLUE),
    ("commit", ("commit", "release"), TEAL),
    ("hold", ("hold",), AMBER),
    ("receipt, return, correction", ("receipt", "return", "damage", "adjustment"), SLATE),
)


def _throughput(axes: Axes, result: Result) -> bool:
    """Decided requests a second, by verb."""
    by_second = result.tally.by_second
    seconds = {second for band in _BANDS for verb in band[1] for second in by_second.get(verb, ())}
    if len(seconds) < 3:
        return False
    first, last = min(seconds), max(seconds)
    # The first and the last second are cut off by the run's own limits and would show as slow ones.
    xs = list(range(first + 1, last))
    series = [[sum(by_second[verb][x] for verb in verbs if verb in by_second) for x in xs] for _, verbs, _ in _BANDS]
    axes.stackplot(
        [x - first for x in xs], series, labels=[name for name, *_ in _BANDS], colors=[c for *_, c in _BANDS], alpha=0.9
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=len(_BANDS))
    axes.set_xlabel("seconds since the first receipt")
    axes.set_ylabel("answers a second")
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.grid(axis="x", visible=False)
    axes.margins(x=0)
    axes.set_ylim(bottom=0)
    return True


def _latency(axes: Axes, result: Result) -> bool:
    """What share of the answers came within how many ms; each further nine has the same room."""
    drawn = False
    for verb, color in (("shipment", BLUE), ("commit", TEAL), ("hold", AMBER), ("return", SLATE)):
        ordered = sorted(result.tally.latencies_s.get(verb, ()))
        if len(ordered) < 10:
            continue
        shares = [i / 20 for i in range(10, 19)] + [1 - 10 ** (-i / 10) for i in range(10, 60)]
        shares = [share for share in shares if (1 - share) * len(ordered) >= 1]
        if not shares:
            continue
        heights = [ordered[int(share * (len(ordered) - 1))] * 1000 for share in shares]
        axes.plot([1 / (1 - share) for share in shares], heights, color=color, linewidth=2, label=verb)
        drawn = True
    if not drawn:
        return False
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [2, 10, 100, 1_000, 10_000, 100_000]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 - 100 / x:.6g} %"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("share of answers within the time")
    axes.set_ylabel("ms")
    axes.legend(loc="upper left")
    return True


def _scarce(axes: Axes, result: Result) -> bool:
    """The SKUs that ran short most: units asked for in carts that were refused because of them."""
    scarce = sorted(result.expected.refused_units.items(), key=lambda item: -item[1])[:12]
    if not scarce:
        return False
    rows = range(len(scarce))
    axes.barh(rows, [units for _, units in scarce], color=AMBER, height=0.62)
    for row, (_, units) in zip(rows, scarce, strict=True):
        axes.annotate(f"{units:,d}", (units, row), xytext=(6, 0), textcoords="offset points", va="center")
    names = [sku[:24].replace("$", r"\$") for sku, _ in scarce]
    _name_bars(axes, names, "units asked for when too few were left")
    return True


def _name_bars(axes: Axes, names: list[str], units: str) -> None:
    """Label horizontal bars, the first on top, with room at their ends for the figures."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.margins(x=0.1)
    axes.set_xlabel(units)

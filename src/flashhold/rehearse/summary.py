"""The outcome as an operator reads it in a terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flashhold.rehearse.result import Result
from flashhold.rehearse.words import CLASS_MEANS, MINUS, count, duration, explanation, number, stock_mode, verdict

_ROWS_SHOWN_MAX = 20
_VERBS = ("hold", "commit", "shipment", "return", "damage", "adjustment", "release", "receipt")


def print_summary(result: Result, console: Console) -> None:
    """Verdict, figures, latencies, the three witnesses, and whatever differs."""
    good = "bold green" if result.clean else "bold red"
    console.print()
    console.print(Text(verdict(result), style=good))
    console.print(explanation(result), soft_wrap=True, highlight=False)
    console.print()
    console.print(_figures(result))
    console.print(_classes(result))
    console.print(_latencies(result))
    console.print(_witnesses(result))
    if result.settled.differences:
        console.print(_differences(result))
    _sentences(console, "Findings", result.settled.findings, result.settled.finding_count)
    _sentences(console, "Ledger entries of others on these SKUs", result.settled.others, len(result.settled.others))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _figures(result: Result) -> Table:
    units = result.played.units
    table = _table(f"{result.file} through {result.url}", "", "")
    repeats = sum(result.tally.repeats.values())
    for name, value in (
        ("rows", number(result.plan.rows)),
        ("orders", f"{number(result.orders)} in {count(result.holds, 'hold')}"),
        ("stock", stock_mode(result)),
        ("units received", number(units["received"])),
        ("units held", number(units["held"])),
        ("units committed", number(units["committed"])),
        ("units shipped", number(units["shipped"])),
        ("units returned", number(units["returned"])),
        ("units damaged", number(units["damaged"])),
        ("units adjusted", f"+{number(units['adjusted_up'])} {MINUS}{number(units['adjusted_down'])}"),
        ("holds refused", number(result.refused)),
        ("movements refused", number(len(result.played.refused_movements))),
        ("units oversold", number(result.settled.oversold_units)),
        ("differences", number(result.settled.count)),
        ("requests a second", f"{number(result.requests_per_s)} ({count(repeats, 'repeat')})"),
        ("time", f"{duration(result.seconds.run)}, of it playing {duration(result.seconds.play)}"),
        ("run", result.run),
    ):
        table.add_row(name, value)
    return table


def _classes(result: Result) -> Table:
    table = _table("Rows by what they mean", "class", "rows", "played as")
    for row_class, rows in result.plan.rows_by_class.items():
        if rows:
            table.add_row(str(row_class), number(rows), CLASS_MEANS[row_class])
    table.columns[2].justify = "left"
    return table


def _latencies(result: Result) -> Table:
    table = _table("Answers, ms", "verb", "count", "p50", "p95", "p99", "max")
    for verb in _VERBS:
        if figures := result.latency_ms(verb):
            quantiles = (f"{figures[name]:.1f}" for name in ("p50", "p95", "p99", "max"))
            table.add_row(verb, number(figures["count"]), *quantiles)
    return table


def _witnesses(result: Result) -> Table:
    table = _table("Change of units over all SKUs", "bucket", "file", "Redis", "ledger")
    for bucket, (file, redis, ledger) in result.settled.totals.items():
        table.add_row(bucket, number(file), "" if redis is None else number(redis), number(ledger))
    return table


def _differences(result: Result) -> Table:
    shown = result.settled.differences[:_ROWS_SHOWN_MAX]
    title = f"Differences ({len(shown)} of {number(len(result.settled.differences))})"
    table = _table(title, "SKU", "bucket", "file", "Redis", "ledger")
    for difference in shown:
        redis = "" if difference.redis is None else number(difference.redis)
        table.add_row(
            Text(difference.sku), difference.bucket, number(difference.file), redis, number(difference.ledger)
        )
    return table


def _sentences(console: Console, title: str, sentences: list[str], total: int) -> None:
    if total:
        console.print(Text(f"{title} ({number(total)})", style="bold"))
        for sentence in sentences[:_ROWS_SHOWN_MAX]:
            console.print(Text(f"  {sentence}"))

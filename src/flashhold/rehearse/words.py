"""How the summary and the report put things, so that both say the same."""

from flashhold.rehearse.reader import RowClass
from flashhold.rehearse.result import Result

MINUS = "\N{MINUS SIGN}"

CLASS_MEANS = {
    RowClass.SALE: "held, committed and shipped as an order line",
    RowClass.ABANDONED: "held and given back",
    RowClass.RETURN: "a return",
    RowClass.WRITE_OFF: "damage, or an adjustment downwards, with the row's words as the reason",
    RowClass.FIND: "an adjustment upwards, with the row's words as the reason",
    RowClass.RECEIPT: "a receipt of the file's own",
    RowClass.NON_GOODS: "not stock (postage, fees, discounts, vouchers, samples): counted, not played",
    RowClass.BOOKKEEPING: "not stock (bookkeeping): counted, not played",
    RowClass.UNCLEAR: "neither sale nor return by its sign: counted, not played",
}


def number(value: float) -> str:
    """1234567 → 1,234,567."""
    return f"{value:,.0f}".replace("-", MINUS)


def duration(seconds: float) -> str:
    """Seconds as an operator says them: 0.4 s, 12 s, 3 min 05 s."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def count(value: int, noun: str) -> str:
    """1 order, 2 orders."""
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"


def verdict(result: Result) -> str:
    """The one line that matters."""
    settled = result.settled
    if result.clean:
        return "Every unit accounted for"
    oversold = f"{count(settled.oversold_units, 'unit')} oversold" if settled.oversold_units else ""
    differences = count(settled.count, "difference") if settled.count else ""
    return ", ".join(filter(None, (oversold, differences)))


def explanation(result: Result) -> str:
    """The verdict in a few sentences."""
    settled = result.settled
    figures = f"{number(settled.compared)} figures of {count(len(result.plan.skus), 'SKU')}"
    if settled.differences:
        said = [f"Of {figures}, {number(len(settled.differences))} differ between the file, Redis and the ledger."]
    else:
        said = [f"The file, Redis and the ledger agree on all {figures}."]
    if settled.finding_count:
        said.append(f"There are {count(settled.finding_count, 'finding')} about answers or entries.")
    if settled.others:
        said.append(f"Others changed the same SKUs during the run ({number(len(settled.others))} ledger entries).")
    if settled.oversold_units == 0:
        said.append("No unit was sold twice.")
    if result.plan.ordered:
        as_it_must = result.played.refused_holds == result.expected.refused_holds
        must = ", exactly as the file says it must be" if as_it_must else ""
        said.append(f"Stock was short: {number(result.refused)} of {count(result.holds, 'hold')} refused{must}.")
    return " ".join(said)


def stock_mode(result: Result) -> str:
    """Where the stock came from."""
    if result.plan.brings_stock:
        return "the file's own receipts"
    if result.plan.ordered:
        return f"{result.plan.stock_ratio:.0%} of what is sold and written off"
    return "enough for everything that is sold and written off"

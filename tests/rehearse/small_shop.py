"""Builds `small_shop.csv`: four weeks of a shop in the retail file's own form, with every oddity the real one has.

Run it to write the file again: `python -m tests.rehearse.small_shop`. The same bytes come out each time.
"""

import csv
import io
import random
from datetime import datetime, timedelta
from pathlib import Path

from flashhold.rehearse.reader import RETAIL_HEADER

PATH = Path(__file__).with_name("small_shop.csv")

ODD_SKUS = (
    "85123A",
    "85123a",
    "a:b",
    "{p00}",
    "with space",
    "50%off",
    "q?x=1&y#z",
    "sl/ash",
    "..",
    "café ☕",
    "e\u0301",
)
"""Legal names that a careless path, key or hash tag would mangle; two differ in case only, one in normal form only."""

BIG_CART_LINES = 230


def build() -> str:
    """The file's text."""
    rng = random.Random(541_909)
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(RETAIL_HEADER.split(","))
    skus = [*ODD_SKUS, *(f"{21_000 + n}" for n in range(40))]
    at = datetime(2010, 12, 1, 8, 26)

    def row(
        invoice: str, sku: str, quantity: int, price: str = "2.55", *, buyer: str = "17850.0", text: str = "MUG"
    ) -> None:
        rows.writerow([invoice, sku, text, quantity, at.isoformat(sep=" "), price, buyer, "United Kingdom"])

    for number in range(150):
        at += timedelta(minutes=rng.randrange(1, 500))
        invoice, buyer = str(536_365 + number), rng.choice(["17850.0", "13047.0", ""])
        for _ in range(rng.randrange(1, 7)):
            row(invoice, rng.choice(skus), rng.randrange(1, 25), buyer=buyer)
        if number % 12 == 0:
            row(invoice, "POST", 1, "18.00", buyer=buyer)
        if number % 9 == 0:
            row(f"C{540_000 + number}", rng.choice(skus), -rng.randrange(1, 9), buyer=buyer)
        if number % 15 == 0:
            reason = rng.choice(["damaged", "wet pallet", "check", "?", "", 'lost, "perhaps"\nin space'])
            row(str(550_000 + number), rng.choice(skus), -rng.randrange(1, 30), "0.0", buyer="", text=reason)
        if number % 20 == 0:
            row(
                str(560_000 + number),
                rng.choice(skus),
                rng.randrange(1, 40),
                "0.0",
                buyer="",
                text=rng.choice(["found", ""]),
            )
    row("570000", skus[0], 4, text="again")
    row("570000", skus[0], 5, text="the same SKU adds up")
    row("570001", skus[1], 1)
    row("570000", skus[2], 1, text="an order's rows need not stand together")
    for line in range(BIG_CART_LINES):
        row("570002", f"big-{line}", 1 + line % 3)
    row("570003", "23843", 80_995, "2.08", buyer="16446.0", text="PAPER CRAFT , LITTLE BIRDIE")
    row("C570004", "23843", -80_995, "2.08", buyer="16446.0", text="PAPER CRAFT , LITTLE BIRDIE")
    row("C570005", "returned only", -3)
    row("A570006", "B", 1, "-11062.06", buyer="", text="Adjust bad debt")
    for sku in ("D", "M", "m", "DOT", "gift_0001_20", "BANK CHARGES"):
        row("570007", sku, -1 if sku == "D" else 1, "0.0" if sku == "m" else "9.99")
    row("C570008", "21000", 2, text="a cancellation that adds: nobody knows what it means")
    return out.getvalue()


if __name__ == "__main__":
    PATH.write_bytes(build().encode())

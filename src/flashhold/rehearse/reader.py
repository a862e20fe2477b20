"""Recorded shop days → records: one `Record` a row, each in exactly one class.

Two files are understood, plain or gzipped, told apart by their header:

* the UCI "Online Retail" CSV, `InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country`;
* the event CSV, `at,type,order,sku,quantity,buyer,reason`. `at` is ISO 8601 (UTC unless it says otherwise) or empty;
  `type` is `sale`, `abandoned`, `return`, `damage`, `adjustment` or `receipt`; rows of one `order` are one cart;
  `quantity` is positive, signed only for `adjustment`; `order` may be empty but for the two carts; `buyer` and
  `reason` may be empty. A file with `receipt` rows brings its own stock.
"""

import csv
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

from flashhold.domain import limits

RETAIL_HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
EVENT_HEADER = "at,type,order,sku,quantity,buyer,reason"

NON_GOODS = frozenset({"POST", "D", "M", "m", "DOT", "C2", "S", "B", "PADS", "CRUK", "BANK CHARGES", "AMAZONFEE"})
NON_GOODS_PREFIX = "gift_0001_"
"""Postage, discounts, manual lines, samples, fees, vouchers: codes of the retail file that name no countable thing."""

_GZIP_MAGIC = b"\x1f\x8b"


class RowClass(StrEnum):
    """What a row means for stock. The last three change nothing and are only counted."""

    SALE = "sale"
    ABANDONED = "abandoned"
    RETURN = "return"
    WRITE_OFF = "write_off"
    FIND = "find"
    RECEIPT = "receipt"
    NON_GOODS = "non_goods"
    BOOKKEEPING = "bookkeeping"
    UNCLEAR = "unclear"


class Record(NamedTuple):
    """One row. `quantity` is in units and positive, the class says which way; `at_s` is s since 1970 UTC, or None."""

    row: int
    row_class: RowClass
    order: str
    sku: str
    quantity: int
    at_s: float | None
    buyer: str | None
    reason: str
    damaged: bool | None
    """Whether a write-off is damage, where the file says so; None leaves it to the reason's words."""


class UnreadableFile(ValueError):
    """The file is not one that can be rehearsed; the message names the row and what is wrong with it."""


def read(path: Path, limit_rows: int | None = None) -> Iterator[Record]:
    """The file's records in file order, at most `limit_rows`. Raises `UnreadableFile`, or OSError."""
    with _open(path) as file:
        rows = csv.reader(file)
        try:
            header = ",".join(next(rows, []))
            decode = {RETAIL_HEADER: _retail, EVENT_HEADER: _event}.get(header)
            if decode is None:
                raise UnreadableFile(
                    f"{path.name}: the header is {header[:200]!r}; expected {RETAIL_HEADER!r} or {EVENT_HEADER!r}"
                )
            clock = _Clock()
            for number, row in enumerate(islice(rows, limit_rows), 1):
                try:
                    yield decode(number, row, clock)
                except ValueError as error:
                    raise UnreadableFile(f"{path.name}, row {number}: {error}") from error
        except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
            raise UnreadableFile(f"{path.name}: {error}") from error


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    with path.open("rb") as raw:
        zipped = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        binary = gzip.GzipFile(fileobj=raw) if zipped else raw
        with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
            yield text


class _Clock:
    """Parses times; a year of orders repeats each of its minutes, so the last one is remembered."""

    def __init__(self) -> None:
        self._text = ""
        self._at_s: float | None = None

    def __call__(self, text: str) -> float | None:
        if text != self._text:
            moment = datetime.fromisoformat(text) if text else None
            if moment is not None and moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            self._text, self._at_s = text, moment.timestamp() if moment else None
        return self._at_s


def _retail(number: int, row: list[str], clock: _Clock) -> Record:
    invoice, sku, description, quantity_text, at, price_text, customer, _country = row
    quantity, price = int(quantity_text), float(price_text)
    row_class = _retail_class(invoice, sku, quantity, price)
    if row_class not in _COUNTED_ONLY:
        _check_name("InvoiceNo", invoice)
        _check_name("StockCode", sku)
        _check_quantity(abs(quantity))
    return Record(number, row_class, invoice, sku, abs(quantity), clock(at), customer or None, description, None)


_COUNTED_ONLY = frozenset({RowClass.NON_GOODS, RowClass.BOOKKEEPING, RowClass.UNCLEAR})


def _retail_class(invoice: str, sku: str, quantity: int, price: float) -> RowClass:
    """The first rule that fits decides, so that every row has one class.

    A goods row is a cancellation by its `C`, else a sale when it has a price, else a count correction.
    """
    if invoice.startswith("A") or price < 0:
        return RowClass.BOOKKEEPING
    if sku in NON_GOODS or sku.startswith(NON_GOODS_PREFIX):
        return RowClass.NON_GOODS
    if invoice.startswith("C"):
        return RowClass.RETURN if quantity < 0 else RowClass.UNCLEAR
    if price == 0 and quantity:
        return RowClass.WRITE_OFF if quantity < 0 else RowClass.FIND
    return RowClass.SALE if quantity > 0 else RowClass.UNCLEAR


_EVENT_CLASSES = {
    "sale": RowClass.SALE,
    "abandoned": RowClass.ABANDONED,
    "return": RowClass.RETURN,
    "damage": RowClass.WRITE_OFF,
    "receipt": RowClass.RECEIPT,
}


def _event(number: int, row: list[str], clock: _Clock) -> Record:
    at, kind, order, sku, quantity_text, buyer, reason = row
    quantity = int(quantity_text)
    damaged = None
    if kind == "adjustment":
        row_class = RowClass.FIND if quantity > 0 else RowClass.WRITE_OFF
        quantity, damaged = abs(quantity), False
    elif kind in _EVENT_CLASSES:
        row_class = _EVENT_CLASSES[kind]
        damaged = kind == "damage"
    else:
        raise ValueError(f"type {kind!r} is not one of {', '.join([*_EVENT_CLASSES, 'adjustment'])}")
    _check_quantity(quantity)
    _check_name("sku", sku)
    if order or row_class in (RowClass.SALE, RowClass.ABANDONED):
        _check_name("order", order)
    if buyer:
        _check_name("buyer", buyer)
    return Record(number, row_class, order, sku, quantity, clock(at), buyer or None, reason, damaged)


def _check_name(field: str, text: str) -> None:
    if not limits.is_text(text):
        raise ValueError(
            f"{field} must be 1-{limits.TEXT_LENGTH_MAX} characters, none a control character, not {text!r}"
        )


def _check_quantity(quantity: int) -> None:
    if not limits.is_quantity(quantity):
        raise ValueError(f"a quantity must be in {limits.QUANTITY_MIN}-{limits.QUANTITY_MAX}, not {quantity}")

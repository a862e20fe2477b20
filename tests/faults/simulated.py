"""What the simulated shop is made of: pools, refusals, and how things are shown."""

from typing import Any

from flashhold.domain.entries import Entry
from tests.faults.checks_answers import instant


class Refusal(Exception):
    """A call is refused."""

    def __init__(self, status: int, code: str, **members: Any) -> None:
        super().__init__(code)
        self.status = status
        self.body = {"code": code, **members}


class SimPool:
    def __init__(self) -> None:
        self.units = [0, 0, 0, 0, 0, 0]
        self.safety, self.allowance = 0, 0
        self.due: list[tuple[int, str]] = []

    @property
    def sellable(self) -> int:
        return self.units[1] - self.safety + self.allowance


def asked_lines(lines: list[dict[str, Any]]) -> list[list[Any]]:
    return [[line["sku"], line.get("pool") or "default", line["quantity"]] for line in lines]


def add_up(lines: list[list[Any]]) -> dict[tuple[str, str], int]:
    units: dict[tuple[str, str], int] = {}
    for sku, pool, quantity, *_ in lines:
        if quantity:
            units[sku, pool] = units.get((sku, pool), 0) + quantity
    return units


def entry_shown(entry: Entry) -> dict[str, Any]:
    return {
        "partition": entry.partition, "epoch": entry.epoch, "seq": entry.seq, "at": instant(entry.at_ms),
        "kind": entry.kind, "hold": entry.hold, "buyer": entry.buyer, "reference": entry.reference,
        "reason": entry.reason, "idempotency_key": entry.idempotency_key, "expires_at": instant(entry.expires_at_ms),
        "shortfall": entry.shortfall, "chain": entry.chain,
        "postings": [posting for change in entry.changes for posting in change.postings()],
    }  # fmt: skip

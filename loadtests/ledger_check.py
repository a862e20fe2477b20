"""Holds what the buyers of a drop were told against FlashHold's ledger, entry by entry."""

import time
from collections import Counter
from typing import Any, NamedTuple
from urllib.parse import quote

from loadtests.flashhold_server import Server
from loadtests.tally import Answer

_QUIET_SECONDS = 30.0


class Finding(NamedTuple):
    """What the ledger says about a drop. `differences` is empty when everything agrees."""

    entries: int
    sold_units: int
    held_units: int
    most_promised_units: int
    audit_status: int
    differences: list[str]

    def sentence(self) -> str:
        verdict = "agrees with every answer" if not self.differences else "DIFFERS"
        return (
            f"Ledger: {self.entries} entries, {self.sold_units} units sold + {self.held_units} held, never more than "
            f"{self.most_promised_units} promised at once; it {verdict}; audit status {self.audit_status}."
        )


def check(server: Server, sku: str, units: int, answers: list[Answer]) -> Finding:
    """Wait until the ledger has caught up with the store, then compare it with the answers and audit it."""
    stock = server.get(f"/v1/skus/{_quoted(sku)}")
    entries = _caught_up(server, sku, stock)
    status, report = server.audit()
    differences = compare(entries, units, answers)
    sold, held = int(stock["committed"]), int(stock["held"])
    if sold + held != units:
        differences.append(f"{sold} units sold and {held} held of {units}")
    if status != 0:
        differences.append(f"flashhold audit ended with {status}: {report}")
    return Finding(len(entries), sold, held, most_promised(entries), status, differences)


def compare(entries: list[dict[str, Any]], units: int, answers: list[Answer]) -> list[str]:
    """Sentences on every way in which the ledger and the buyers' answers disagree."""
    differences = []
    most = most_promised(entries)
    if most > units:
        differences.append(f"{most} units were promised at once, of {units}")
    made = [entry for entry in entries if entry["kind"] == "hold"]
    doubled = [key for key, count in Counter(entry["idempotency_key"] for entry in made).items() if count > 1]
    if doubled:
        differences.append(f"{len(doubled)} keys made more than one hold, e.g. {doubled[0]}")
    wrong = Counter(entry["seq"] for entry in entries if sum(p["quantity"] for p in entry["postings"]))
    if wrong:
        differences.append(f"{len(wrong)} entries do not sum to zero, e.g. seq {next(iter(wrong))}")
    told = {(a.key, a.hold) for a in answers if a.verb == "hold" and a.status == 201}
    written = {(entry["idempotency_key"], entry["hold"]) for entry in made}
    differences += _unequal("holds", told, written, {a.key for a in answers if a.verb == "hold" and a.status != 201})
    paid = {(a.key, a.hold) for a in answers if a.verb == "commit" and a.status == 200}
    key_of = {entry["hold"]: entry["idempotency_key"] for entry in made}
    sold = {(key_of[entry["hold"]], entry["hold"]) for entry in entries if entry["kind"] == "commit"}
    differences += _unequal("payments", paid, sold, {a.key for a in answers if a.verb == "commit" and a.status == 0})
    return differences


def _unequal(
    what: str, told: set[tuple[str, str | None]], written: set[tuple[str, str]], undecided: set[str]
) -> list[str]:
    """Every acknowledgement must be in the ledger; what is there unacknowledged must be somebody's lost answer."""
    said = []
    if missing := told - written:
        said.append(f"{len(missing)} acknowledged {what} are not in the ledger, e.g. {sorted(missing, key=str)[0]}")
    if extra := {item for item in written - told if item[0] not in undecided}:
        said.append(f"{len(extra)} {what} in the ledger were never acknowledged, e.g. {sorted(extra)[0]}")
    return said


def most_promised(entries: list[dict[str, Any]]) -> int:
    """The most units held and sold at once, over every prefix of the ledger."""
    promised = most = 0
    for entry in entries:
        promised += sum(p["quantity"] for p in entry["postings"] if p["bucket"] in ("held", "committed"))
        most = max(most, promised)
    return most


def _caught_up(server: Server, sku: str, stock: dict[str, Any]) -> list[dict[str, Any]]:
    """The SKU's entries once their fold has reached the store's counters. Raises TimeoutError if it never does."""
    deadline = time.monotonic() + _QUIET_SECONDS
    while True:
        entries = server.ledger(sku)
        folded = Counter[str]()
        for entry in entries:
            for posting in entry["postings"]:
                folded[posting["bucket"]] += posting["quantity"]
        if (folded["held"], folded["committed"]) == (stock["held"], stock["committed"]):
            return entries
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"After {_QUIET_SECONDS:.0f} s the ledger says held {folded['held']}, committed {folded['committed']}; "
                f"the store says {stock['held']}, {stock['committed']}"
            )
        time.sleep(0.2)


def _quoted(sku: str) -> str:
    return quote(sku, safe="")

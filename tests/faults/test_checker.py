"""The checker finds nothing in what is right, and everything that was spoiled on purpose, under its own name."""

import time
from typing import Any

import pytest

from flashhold.domain.entries import Entry, PoolChange
from tests.faults.checker import check
from tests.faults.checks_answers import instant
from tests.faults.corruptions import corruption
from tests.faults.corruptions_otherwise import otherwise
from tests.faults.corruptions_told import told
from tests.faults.history import Answered, Fault, History, Invoked, Operation
from tests.faults.simulated import entry_shown
from tests.faults.spoiling import Corruption, NothingToSpoil, Spoiler
from tests.faults.verdict import KEPT_MAX, KINDS
from tests.faults.views import LedgerView
from tests.faults.visitors import correct

pytestmark = pytest.mark.quick

CORRUPTIONS = corruption.all + otherwise.all + told.all
NEED_A_JOURNAL = {"rows-differ", "chain-broken"}
"""Found in the journal's bytes, which made-up histories don't have: `test_recorded.py` looks for these."""

MS = 1_000_000
T0 = 1_700_000_000_000


@pytest.mark.parametrize("hundred", range(3))
def test_what_is_right_has_no_violation(hundred: int) -> None:
    """Hundreds of random correct histories, with calls that overlap, get lost and are repeated."""
    for seed in range(100 * hundred, 100 * hundred + 100):
        verdict = check(*correct(seed, 200), level="disk")
        assert verdict.clean, f"seed {seed}: {verdict.sentences()}"


def test_every_kind_of_violation_is_planted() -> None:
    """There is a corruption for every rule, and no two of the same name."""
    assert {each.finds for each in CORRUPTIONS} == set(KINDS)
    assert len({each.name for each in CORRUPTIONS}) == len(CORRUPTIONS) >= 25


@pytest.mark.parametrize("each", [c for c in CORRUPTIONS if c.finds not in NEED_A_JOURNAL], ids=lambda c: str(c.name))
def test_a_corruption_is_found_and_named(each: Corruption) -> None:
    """Three random histories spoiled in this way; each is found by the kind that the corruption names."""
    spoiled, seed = 0, 0
    while spoiled < 3:
        seed += 1
        assert seed < 60, f"only {spoiled} of {seed} histories have what {each.name} needs"
        spoiler = Spoiler(correct(seed, 200), seed)
        try:
            each.spoil(spoiler)
        except NothingToSpoil:
            continue
        spoiled += 1
        verdict = check(*spoiler.triple(), level="disk")
        assert each.finds in verdict.by_kind, f"seed {seed}: {verdict.sentences()}"


def _lost_tail(seed: int, *, fault_after: bool) -> Spoiler:
    """A correct history whose ledgers have lost their last entries."""
    spoiler = Spoiler(correct(seed, 200), seed)
    ends = {entry.partition: (entry.epoch, entry.seq - 5) for entry in spoiler.entries}
    spoiler.entries = [e for e in spoiler.entries if (e.epoch, e.seq) <= ends[e.partition]]
    spoiler.stores, spoiler.balances = [], {}
    if fault_after:
        end_ns = spoiler.end_ns
        spoiler.faults = [Fault(end_ns, "kill redis", "begin"), Fault(end_ns + 10, "kill redis", "end")]
        # Served again under a new epoch, before whoever broke it has noticed.
        like = next(entry for entry in spoiler.entries if entry.kind == "receipt" and not entry.reason)
        again = spoiler.append(like, idempotency_key="after")
        again = spoiler.change(spoiler.entries.index(again), epoch=again.epoch + 1)
        change = again.changes[0]
        request = {"type": "receipt", "sku": change.sku, "pool": change.pool, "quantity": change.available}
        asked = Invoked(10**6, end_ns + 5, "w", "move", "after", request)
        spoiler.operations.append(Operation(asked, Answered(10**6, end_ns + 6, 201, False, entry_shown(again))))
    return spoiler


def _but_balances(spoiler: Spoiler, level: str) -> Any:
    history, ledger, _ = spoiler.triple()
    return check(history, ledger._replace(balances=None), None, level=level)


def test_a_lost_tail_is_forgiven_at_memory_only_and_counted() -> None:
    """What was acknowledged before a fault may be missing at `memory`; at `disk`, or without a fault, never."""
    lost = 0
    for seed in range(20):
        verdict = _but_balances(_lost_tail(seed, fault_after=True), "memory")
        assert verdict.clean, f"seed {seed}: {verdict.sentences()}"
        lost += verdict.checked["lost"]
        assert "acknowledged-lost" in _but_balances(_lost_tail(seed, fault_after=True), "disk").by_kind
        assert "acknowledged-lost" in _but_balances(_lost_tail(seed, fault_after=False), "memory").by_kind
    assert lost >= 40


def test_a_hole_is_never_forgiven() -> None:
    """Also at `memory` a fault takes a tail, and nothing out of the middle."""
    for seed in range(10):
        spoiler = Spoiler(correct(seed, 200), seed)
        spoiler.faults = [Fault(spoiler.end_ns + 1, "kill redis", "end")]
        keys = {op.invoked.key for op in spoiler.operations if getattr(op.ended, "status", 0) == 201}
        found = [i for i, e in enumerate(spoiler.entries) if e.idempotency_key in keys and 10 < e.seq < 40]
        del spoiler.entries[found[0]]
        assert "acknowledged-lost" in _but_balances(spoiler, "memory").by_kind


def _refused_then_granted(epoch: int, faults: list[Fault]) -> History:
    """One key, refused in the first epoch and granted later, to another buyer."""
    short = {"code": "insufficient-stock", "lines": [{"sku": "shoe", "pool": "default", "requested": 5, "sellable": 0}]}
    lines = [{"sku": "shoe", "quantity": 5}]
    hold: dict[str, Any] = {
        "id": "h", "state": "held", "buyer": None, "created_at": instant(T0), "expires_at": instant(T0 + 1000),
        "lines": [{"sku": "shoe", "pool": "default", "quantity": 5, "committed": 0, "released": 0}], "ended_at": None,
        "reference": None, "reason": None, "reacquired": False, "metadata": {}, "partition": "p00", "epoch": epoch,
        "seq": 2,
    }  # fmt: skip
    place = {"partition": "p00", "epoch": 1, "seq": 0}
    asked = Invoked(1, 1 * MS, "w", "hold", "b", {"lines": lines})
    received = Invoked(2, 3 * MS, "w", "move", "a", {"type": "receipt", "sku": "shoe", "quantity": 5})
    again = Invoked(3, 5 * MS, "w", "hold", "b", {"lines": lines})
    operations = [
        Operation(asked, Answered(1, 2 * MS, 409, False, {**short, **place})),
        Operation(received, None),
        Operation(again, Answered(3, 7 * MS, 201, False, hold)),
    ]
    return History(operations, faults, [])


def test_a_refusal_may_be_forgotten_with_its_epoch_or_in_a_fault_at_memory() -> None:
    """The ledger has no refusals, so what is rebuilt from it knows none; anywhere else one key has one answer."""
    fault = [Fault(4 * MS, "flush", "begin"), Fault(8 * MS, "flush", "end")]
    for epoch, faults, level, clean in (
        (1, [], "disk", False),
        (1, fault, "disk", False),
        (1, fault, "memory", True),
        (2, fault, "disk", True),
    ):
        made = ("shoe", "default", 0, -5, 5, 0, 0, 0)
        ledger = LedgerView(
            [
                _entry(1, T0, "receipt", "a", ("shoe", "default", -5, 5, 0, 0, 0, 0)),
                _entry(2, T0, "hold", "b", made, hold="h", expires_at_ms=T0 + 1000)._replace(epoch=epoch),
            ]
        )
        verdict = check(_refused_then_granted(epoch, faults), ledger, level=level)
        assert verdict.clean == clean, (epoch, level, verdict.sentences())
        assert clean or {"answers-differ", "two-firsts"} <= set(verdict.by_kind)


def _entry(seq: int, at_ms: int, kind: str, key: str | None, change: tuple[Any, ...], **more: Any) -> Entry:
    return Entry(
        "p00", 1, seq, at_ms, kind, more.get("hold"), key, None, None, more.get("expires_at_ms"), None, None, None,
        (PoolChange(*change),), None, f"{seq:040x}",
    )  # fmt: skip


def _nobody_sweeps(requested: int, verb: str = "hold", sellable: int = 0) -> tuple[History, LedgerView]:
    """Five shoes, all held until a second ago; then somebody wants some, or looks."""
    ledger = LedgerView(
        [
            _entry(1, T0, "receipt", "a", ("shoe", "default", -5, 5, 0, 0, 0, 0)),
            _entry(2, T0, "hold", "b", ("shoe", "default", 0, -5, 5, 0, 0, 0), hold="h", expires_at_ms=T0 + 1000),
            _entry(3, T0 + 2000, "receipt", "c", ("sock", "default", -5, 5, 0, 0, 0, 0)),
        ]
    )
    place = {"partition": "p00", "epoch": 1, "seq": 3}
    if verb == "hold":
        short = [{"sku": "shoe", "pool": "default", "requested": requested, "sellable": sellable}]
        request: dict[str, Any] = {"lines": [{"sku": "shoe", "quantity": requested}]}
        told = Answered(4, 8 * MS, 409, False, {"code": "insufficient-stock", "lines": short, **place})
    else:
        request = {"sku": "shoe"}
        figures = {"on_hand": 5, "held": 5, "committed": 0, "damaged": 0, "in_transit": 0, "sellable": 0}
        rules = {"safety_stock": 0, "oversell_allowance": 0}
        told = Answered(4, 8 * MS, 200, None, {"sku": "shoe", "pool": "default", **figures, **rules, **place})
    asked = [
        Invoked(1, 1, "w", "move", "a", {"type": "receipt", "sku": "shoe", "quantity": 5}),
        Invoked(2, 2, "w", "hold", "b", {"lines": [{"sku": "shoe", "quantity": 5}], "ttl_seconds": 1}),
        Invoked(3, 3, "w", "move", "c", {"type": "receipt", "sku": "sock", "quantity": 5}),
    ]
    operations = [Operation(invoked, None) for invoked in asked]
    operations.append(Operation(Invoked(4, 7 * MS, "w", verb, "d" if verb == "hold" else None, request), told))
    return History(operations, [], []), ledger


def test_what_is_overdue_counts_as_free() -> None:
    """A refusal, and a read, that count a hold past its deadline are found out; asking for more than all is not."""
    assert check(*_nobody_sweeps(5), level="disk").by_kind == {"refused-without-reason": 1}
    assert check(*_nobody_sweeps(6), level="disk").clean
    assert check(*_nobody_sweeps(0, "read_stock"), level="disk").by_kind == {"read-differs": 1}


def test_only_the_first_violations_are_kept_in_words() -> None:
    """All are counted."""
    spoiler = Spoiler(correct(1, 400), 1)
    spoiler.entries = []
    verdict = check(*spoiler.triple(), level="disk")
    assert sum(verdict.by_kind.values()) > KEPT_MAX == len(verdict.violations)
    assert "acknowledged-lost" in verdict.sentences()


def test_times_are_written_as_the_contract_has_them() -> None:
    """RFC 3339, UTC, milliseconds."""
    assert instant(T0 + 7) == "2023-11-14T22:13:20.007Z"
    assert instant(None) is None


@pytest.mark.slow
def test_the_checker_is_linear() -> None:
    """Four times the calls take at most seven times the time, and 40,000 a few seconds."""
    small, large = correct(1, 10_000), correct(1, 40_000)
    took = []
    for triple in (small, large):
        began = time.process_time()
        assert check(*triple, level="disk").clean
        took.append(time.process_time() - began)
    assert took[1] < 7 * took[0], took
    assert took[1] < 15, took

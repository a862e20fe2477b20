"""The linear checker: is what clients were told what the ledger says, and could it all have happened in that order?

One pass over the ledger, partition by partition; before each entry is taken in, the answers whose place comes before it
are judged on the books as they stand. The rules are in `checks_*.py`, each named by the kind of violation it finds.
"""

import gc
from collections.abc import Iterable

from flashhold.domain.entries import Entry
from tests.faults.books import Books, Place
from tests.faults.checks_answers import incomplete, judge
from tests.faults.checks_causes import check_cause
from tests.faults.checks_keys import check_keys
from tests.faults.checks_ledger import AFTER, BEFORE
from tests.faults.checks_order import Order
from tests.faults.checks_rest import check_balances, check_batches, check_store
from tests.faults.history import History
from tests.faults.index import APPLIED, UNKNOWN, Call, Index, Timeline
from tests.faults.verdict import Verdict
from tests.faults.views import LedgerView, StoreView

LEVELS = ("memory", "disk", "replica", "ledger")


def check(
    history: History, ledger: LedgerView, store: StoreView | Iterable[StoreView] | None = None, *, level: str
) -> Verdict:
    """Hold the history against ledger and store, both read after everything came to rest.

    `level`: what the run promised. At `memory` what was acknowledged before the end of a recorded fault may be missing;
    give it too where a fault is one that the deployment's level does not survive (`disk`, and the data deleted).
    """
    assert level in LEVELS, level
    collects = gc.isenabled()
    gc.disable()  # nothing here is garbage before the end, and looking for it takes half of the time
    try:
        return _check(history, ledger, [store] if isinstance(store, StoreView) else list(store or ()), level)
    finally:
        if collects:
            gc.enable()


def _check(history: History, ledger: LedgerView, stores: list[StoreView], level: str) -> Verdict:
    verdict, index = Verdict(), Index(history)
    keyed: dict[str, tuple[str, int, int]] = {}
    partitions: dict[str, list[Entry]] = {}
    for entry in ledger.entries:
        partitions.setdefault(entry.partition, []).append(entry)
        if entry.idempotency_key is not None:
            keyed.setdefault(entry.idempotency_key, (entry.partition, entry.epoch, entry.seq))
    _count(index, ledger, verdict)
    if level == "memory" and index.fault_ends:
        index.at_memory = True
        _forgive(index, ledger, verdict)
    order = Order(index)
    for partition in sorted({*partitions, *(call.partition for call in index.calls if call.partition is not None)}):
        books = _check_partition(partition, partitions.get(partition, []), index, keyed, order, verdict)
        check_balances(books, ledger, verdict)
        for view in stores:
            if view.partition == partition:
                check_store(books, view, verdict)
    for call in index.calls:
        order.check_answer(verdict, call)
        if wrong := incomplete(call):
            verdict.add("answer-differs", str(call), wrong)
    check_keys(index, verdict, keyed)
    check_batches(ledger, verdict)
    return verdict


def _check_partition(
    partition: str,
    entries: list[Entry],
    index: Index,
    keyed: dict[str, tuple[str, int, int]],
    order: Order,
    verdict: Verdict,
) -> Books:
    books = Books(partition)
    judged = [(c.place, c) for c in index.calls if c.partition == partition and c.place is not None and not c.forgiven]
    judged.sort(key=lambda waiting: waiting[0], reverse=True)
    applied: set[str] = set()
    for entry in entries:
        place = (entry.epoch, entry.seq)
        while judged and judged[-1][0] < place:
            _judge(books, judged.pop()[1], keyed, verdict)
        where = f"{partition} {entry.epoch}/{entry.seq}"
        for kind, rule in BEFORE.items():
            if wrong := rule(books, entry):
                verdict.add(kind, where, wrong)
        key = entry.idempotency_key
        if key is not None and key in applied:
            verdict.add("duplicate-effect", where, f"key {key} took effect before, at {keyed[key]}")
        elif key is not None:
            applied.add(key)
        cause = check_cause(books, index, verdict, entry)
        if cause is not None:
            order.check_entry(verdict, partition, place, cause)
        books.apply(entry)
        for kind, rule in AFTER.items():
            if wrong := rule(books, entry):
                verdict.add(kind, where, wrong)
    while judged:
        _judge(books, judged.pop()[1], keyed, verdict)
    return books


def _judge(books: Books, call: Call, keyed: dict[str, tuple[str, int, int]], verdict: Verdict) -> None:
    found = judge(books, call, keyed)
    if found:
        verdict.add(found[0], str(call), found[1])


def _forgive(index: Index, ledger: LedgerView, verdict: Verdict) -> None:
    """Marks what a fault may have taken along at `memory`: of the answers that came before its end, those behind the
    last acknowledged change of the same epoch that the ledger still has. A hole before that is none of a lost tail's,
    so not forgiven. What a rebuilt store answers before the fault's end is noted is of a later epoch."""
    at = {(entry.partition, entry.epoch, entry.seq): entry for entry in ledger.entries}
    answered = [call for call in index.calls if call.place is not None and call.partition is not None]
    kept: dict[tuple[str | None, int], list[tuple[int, Place]]] = {}
    for call in answered:
        assert call.place is not None and call.partition is not None
        entry = at.get((call.partition, *call.place))
        mine = entry is not None and call.key == entry.idempotency_key and call.hold in (None, entry.hold)
        if call.fate == APPLIED and mine:
            kept.setdefault((call.partition, call.place[0]), []).append((call.answered_ns, call.place))
    timelines = {where: Timeline(told) for where, told in kept.items()}
    begins = sorted(fault.at_ns for fault in index.faults if fault.phase == "begin")
    for call in answered:
        assert call.place is not None
        fault = index.period(call.answered_ns)
        if fault == len(index.fault_ends):
            continue
        # What was acknowledged after the fault had begun may have come from the store that was rebuilt.
        begin_ns = begins[fault] if fault < len(begins) else index.fault_ends[fault]
        if call.place > timelines.get((call.partition, call.place[0]), Timeline([])).before(begin_ns):
            call.forgiven = True
            verdict.checked["lost" if call.fate == APPLIED else "seen before a loss"] += 1


def _count(index: Index, ledger: LedgerView, verdict: Verdict) -> None:
    checked = verdict.checked
    checked["operations"] = len(index.calls)
    for call in index.calls:
        checked["acknowledged" if call.fate == APPLIED else call.fate] += 1
    checked[UNKNOWN] += 0
    checked["keys"] = len(index.by_key)
    checked["entries"] = len(ledger.entries)
    checked["faults"] = len(index.fault_ends)

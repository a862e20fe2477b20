"""What all corruptions need: a correct triple taken apart, picks out of it, and a place to register."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from flashhold.domain.entries import Entry, PoolChange
from tests.faults.books import Books
from tests.faults.history import Answered, History, Operation
from tests.faults.index import Call
from tests.faults.views import LedgerView, StoreView

Triple = tuple[History, LedgerView, list[StoreView]]


class Spoiler:
    """One triple's own copy, to be spoiled in place."""

    def __init__(self, triple: Triple, seed: int) -> None:
        history, ledger, stores = triple
        self.roll = random.Random(seed)
        self.operations = list(history.operations)
        self.faults = list(history.faults)
        self.declared = list(history.declared)
        self.entries = list(ledger.entries)
        self.balances = dict(ledger.balances or {})
        self.batches = None if ledger.batches is None else list(ledger.batches)
        self.stores = list(stores)

    def triple(self) -> Triple:
        """What has become of it."""
        operations = sorted(self.operations, key=lambda operation: operation.invoked.at_ns)
        history = History(operations, self.faults, self.declared)
        return history, LedgerView(self.entries, self.balances, self.batches), self.stores

    def choose(self, found: list[Any], what: str) -> Any:
        """One of those found. Raises NothingToSpoil where there are none."""
        if not found:
            raise NothingToSpoil(what)
        return self.roll.choice(found)

    # ---- entries

    def entry(self, *kinds: str, where: Callable[[Entry], bool] = lambda _: True) -> int:
        """The index of an entry of one of the kinds (none given: of any)."""
        found = [i for i, e in enumerate(self.entries) if (not kinds or e.kind in kinds) and where(e)]
        return int(self.choose(found, f"an entry {kinds}"))

    def change(self, at: int, **fields: Any) -> Entry:
        """Give the entry other members."""
        self.entries[at] = self.entries[at]._replace(**fields)
        return self.entries[at]

    def append(self, like: Entry, **fields: Any) -> Entry:
        """One more entry at the end of its partition, in a batch of its own."""
        last = [i for i, e in enumerate(self.entries) if e.partition == like.partition][-1]
        end = self.entries[last]
        place = {
            "epoch": end.epoch,
            "seq": end.seq + 1,
            "at_ms": end.at_ms,
            "chain": f"{self.roll.getrandbits(160):040x}",
        }
        entry = like._replace(**{**place, "shortfall": None, **fields})
        self.entries.insert(last + 1, entry)
        return entry

    def move_seqs(self, at: int, by: int) -> None:
        """Number all entries of the partition and epoch from this one on anew."""
        first = self.entries[at]
        for i in range(at, len(self.entries)):
            if (self.entries[i].partition, self.entries[i].epoch) == (first.partition, first.epoch):
                self.change(i, seq=self.entries[i].seq + by)

    def folded(self, partition: str, place: tuple[int, int]) -> Books:
        """The books at a place."""
        books = Books(partition)
        for entry in self.entries:
            if entry.partition == partition and (entry.epoch, entry.seq) <= place:
                books.apply(entry)
        return books

    # ---- calls

    def call(self, where: Callable[[Call], bool], what: str) -> tuple[int, Call]:
        """The index of a call, and the call."""
        found = [(i, c) for i, c in enumerate(map(Call, self.operations)) if where(c)]
        index, call = self.choose(found, what)
        return index, call

    def alone(self, call: Call) -> bool:
        """Whether no other call has its key."""
        return call.key is not None and sum(op.invoked.key == call.key for op in self.operations) == 1

    def answer(self, at: int, **fields: Any) -> None:
        """Give the answer other members; `body` members are merged into the old body."""
        invoked, ended = self.operations[at]
        if not isinstance(ended, Answered):
            ended = Answered(invoked.id, ended.at_ns if ended else invoked.at_ns + 1, 200, None, {})
        if "body" in fields:
            fields["body"] = {**ended.body, **fields["body"]}
        self.operations[at] = Operation(invoked, msgspec.structs.replace(ended, **fields))

    def resend(self, at: int, sent_ns: int, answered_ns: int, **fields: Any) -> None:
        """One more call with the same request and key, answered as this one was but for `fields`."""
        invoked, ended = self.operations[at]
        assert isinstance(ended, Answered)
        id = len(self.operations) + 1
        again = msgspec.structs.replace(invoked, id=id, at_ns=sent_ns, worker="again")
        body = {**ended.body, **fields.pop("body", {})}
        answered = msgspec.structs.replace(ended, id=id, at_ns=answered_ns, body=body, **fields)
        self.operations.append(Operation(again, answered))

    @property
    def end_ns(self) -> int:
        """After everything."""
        times = [op.ended.at_ns for op in self.operations if op.ended is not None]
        return max(times, default=0) + 1


class NothingToSpoil(Exception):
    """This triple has nothing of the kind that the corruption needs; another may."""


class Corruption(NamedTuple):
    """`finds`: the kind of violation by which the checker must name it."""

    name: str
    finds: str
    spoil: Callable[[Spoiler], None]


class Corruptions:
    """A registry."""

    def __init__(self) -> None:
        self.all: list[Corruption] = []

    def __call__(self, finds: str) -> Callable[[Callable[[Spoiler], None]], Callable[[Spoiler], None]]:
        def register(spoil: Callable[[Spoiler], None]) -> Callable[[Spoiler], None]:
            self.all.append(Corruption(spoil.__name__, finds, spoil))
            return spoil

        return register


def times(entry: Entry, factor: int) -> tuple[PoolChange, ...]:
    """The entry's changes with so many times the units."""
    return tuple(PoolChange(c.sku, c.pool, *(units * factor for units in c[2:])) for c in entry.changes)

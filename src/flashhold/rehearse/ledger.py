"""Reads the ledger over HTTP, page by page, and adds it up: once before a run, and from there on after it."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from flashhold.domain.entries import BUCKETS
from flashhold.rehearse.client import Caller
from flashhold.rehearse.requests import Requests

_POLL_S = 0.25
STALLED_AFTER_S = 60.0
"""How long the ledger may stand still before it counts as not catching up: longer than a worker's restart and lease."""

_TAKES_STOCK = frozenset({"hold", "commit", "amend"})
"""Kinds that may take units only while they are sellable. (A commit takes some when it re-acquires.)"""

_AVAILABLE = BUCKETS.index("available")
_INDEX = {bucket: index for index, bucket in enumerate(BUCKETS)}
_FINDINGS_KEPT_MAX = 50


class LedgerUnreadable(Exception):
    """The ledger's pages are not what the contract says."""


class Posting(msgspec.Struct):
    """Signed units in one bucket."""

    sku: str
    pool: str
    bucket: str
    quantity: int


class Details(msgspec.Struct):
    """`part_of`: the cart that a hold is a part of, where its SKUs are in several partitions."""

    part_of: str | None = None


class Entry(msgspec.Struct):
    """What a rehearsal needs of a ledger entry."""

    partition: str
    epoch: int
    seq: int
    kind: str
    hold: str | None
    idempotency_key: str | None
    postings: list[Posting]
    details: Details | None = None


class _Page(msgspec.Struct):
    items: list[Entry]
    next_cursor: str | None


_page = msgspec.json.Decoder(_Page)


class Fold:
    """The sum of all entries read so far, for the SKUs of a run in its pool; six buckets each, as in `BUCKETS`."""

    def __init__(self, requests: Requests, pool: str, skus: Iterable[str]) -> None:
        self.places: dict[str, tuple[int, int]] = {}
        """(epoch, seq) of the last entry read, for each partition."""
        self.buckets = {sku: [0] * len(BUCKETS) for sku in skus}
        self.by_others = {sku: [0] * len(BUCKETS) for sku in self.buckets}
        """What entries that no command of this run caused have added up to."""
        self.slack: dict[str, int] = {}
        """Units of each SKU that may be promised beyond what is available (negative: that may not be), 0 if absent."""
        self.own_kinds: Counter[str] = Counter()
        self.entries_of_others: list[str] = []
        self.oversold_units = 0
        self.findings: list[str] = []
        self._requests = requests
        self._pool = pool
        self._cursors: dict[str, str | None] = {}
        self._own_keys: set[str] = set()
        self._own_holds: set[str] = set()
        self._own_parts: set[str] = set()

    async def follow(self, caller: Caller, partition: str, on_page: Callable[[], None]) -> None:
        """Read a partition to its present end."""
        last = self.places.get(partition, (0, 0))
        page = await self._read(caller, partition)
        while page.items and page.next_cursor is not None:
            self._cursors[partition] = page.next_cursor
            # The next page is on its way while this one is added up.
            coming = asyncio.create_task(self._read(caller, partition))
            await asyncio.sleep(0)
            self._add_behind(last, page)
            on_page()
            page = await coming
        self._add_behind(last, page)

    async def _read(self, caller: Caller, partition: str) -> _Page:
        answer = await caller.call("ledger", self._requests.ledger(partition, self._cursors.get(partition)))
        if answer.status != 200:
            raise LedgerUnreadable(f"GET /v1/ledger answered {answer.status} {answer.body[:200]!r}")
        try:
            return _page.decode(answer.body)
        except msgspec.DecodeError as error:
            raise LedgerUnreadable(f"GET /v1/ledger: {error}") from error

    def _add_behind(self, last: tuple[int, int], page: _Page) -> None:
        """The page that was the last one is read again when there may be more; what is known of it is skipped."""
        for entry in page.items:
            if (entry.epoch, entry.seq) > last:
                self.add(entry)

    async def reach(self, caller: Caller, places: dict[str, tuple[int, int]], on_page: Callable[[], None]) -> None:
        """Follow until every place of `places` has been read; gives up when the ledger stands still, with a finding."""
        for partition, place in sorted(places.items()):  # a cart comes before its parts
            moved = time.monotonic()
            while (here := self.places.get(partition, (0, 0))) < place:
                await self.follow(caller, partition, on_page)
                if self.places.get(partition, (0, 0)) != here:
                    moved = time.monotonic()
                elif time.monotonic() - moved > STALLED_AFTER_S:
                    self.find(f"the ledger of {partition} stands at {here} and does not reach {place}")
                    break
                else:
                    await asyncio.sleep(_POLL_S)

    def find(self, what: str) -> None:
        if len(self.findings) < _FINDINGS_KEPT_MAX:
            self.findings.append(what)

    def add(self, entry: Entry) -> None:
        """Add the next entry of its partition up."""
        epoch, seq = self.places.get(entry.partition, (0, 0))
        if seq and epoch == entry.epoch and entry.seq != seq + 1:
            self.find(f"{entry.partition}: entry {entry.seq} follows {seq} in epoch {epoch}")
        self.places[entry.partition] = (entry.epoch, entry.seq)
        own = self._is_own(entry)
        touched = False
        for posting in entry.postings:
            buckets = self.buckets.get(posting.sku)
            if buckets is None or posting.pool != self._pool:
                continue
            touched = True
            index = _INDEX[posting.bucket]
            buckets[index] += posting.quantity
            if not own:
                self.by_others[posting.sku][index] += posting.quantity
            if index == _AVAILABLE and posting.quantity < 0 and entry.kind in _TAKES_STOCK:
                sellable = buckets[_AVAILABLE] + self.slack.get(posting.sku, 0)
                self.oversold_units += max(0, min(-posting.quantity, -sellable))
        if touched and not own and len(self.entries_of_others) < _FINDINGS_KEPT_MAX:
            moved = ", ".join(f"{p.sku} {p.bucket} {p.quantity:+d}" for p in entry.postings[:4])
            self.entries_of_others.append(f"{entry.partition}/{entry.epoch}/{entry.seq} {entry.kind}: {moved}")

    def _is_own(self, entry: Entry) -> bool:
        """Whether a command of this run caused the entry; what becomes of its holds is the run's too."""
        if entry.details is not None and entry.details.part_of in self._own_holds and entry.hold is not None:
            self._own_parts.add(entry.hold)
        if entry.hold in self._own_parts:
            return True  # but its cart is what was asked for, and is what is counted
        key = entry.idempotency_key
        own = (key is not None and key.startswith(self._requests.key_prefix)) or entry.hold in self._own_holds
        if not own:
            return False
        self.own_kinds[entry.kind] += 1
        if entry.kind == "hold" and entry.hold is not None:
            self._own_holds.add(entry.hold)
        if key is not None:
            if key in self._own_keys:
                self.find(f"key {key} has two entries, the second at {entry.partition}/{entry.epoch}/{entry.seq}")
            self._own_keys.add(key)
        return True

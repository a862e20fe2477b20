"""Rebuilds a partition's store from the ledger, under a new epoch.

Close → let the journal run dry into the ledger → clear → fill → seal → open. From the first step to the last every
batch is refused as recovering. A restorer that dies leaves a closed store, and whoever comes next begins anew; of two
at once one waits. Nothing is decided under the new epoch before the ledger has its first entry.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import redis
import sqlalchemy as sa

from flashhold import telemetry
from flashhold.domain.entries import Batch
from flashhold.domain.errors import FlashHoldError, LedgerConflict, LedgerUnavailable, StoreUnavailable
from flashhold.domain.idempotency import hold_id
from flashhold.domain.revival import RevivedHold, RevivedShare
from flashhold.engine.journal import Journal, Place
from flashhold.engine.options import EngineOptions
from flashhold.engine.revive import SILENCE_MS, Closing, Overtaken, Reviver, Sealed
from flashhold.ledger.connect import connect_sync
from flashhold.ledger.revival import HoldsPage, Revival, place_of, revival_of
from flashhold.ledger.writer import Cursor, LedgerWriter
from flashhold.services.follow import next_group, stream_place

DRY_PATIENCE_S = 60.0
"""How long the journal may take to run dry: longer than the lease of a worker that has died with it in hand."""
JOURNAL_LISTED_MAX = 10_000

_log = telemetry.logger(__name__)


class Why(StrEnum):
    """What is wrong with the store; the value is the reason in the `restore` entry."""

    WHOLE = "whole"
    EMPTY = "store-empty"
    BEHIND = "store-behind"
    FORKED = "other-history"
    GAP = "ledger-behind"
    HALTED = "ledger-halted"
    BY_HAND = "by-hand"


AUTOMATIC = frozenset({Why.EMPTY, Why.BEHIND})
"""What the worker mends by itself: the ledger has all that the store has, and more. Where the store has what the ledger
has not, or both have something else, a restore throws away what only the store knows: that is for someone to say."""


class Finding(NamedTuple):
    """Where the two stores stand, and what that means. `store`: None where it holds no state of the partition."""

    why: Why
    sentence: str
    store: Place | None
    cursor: Cursor


class Missing(NamedTuple):
    """Entries that the store had shown, or still lists, and that nobody has the content of any more."""

    epoch: int
    first_seq: int
    last_seq: int

    @property
    def entries(self) -> int:
        return self.last_seq - self.first_seq + 1


@dataclass
class Restored:
    """What a restore has done."""

    partition: str
    why: Why
    after: Cursor
    """The ledger's last place before it."""
    place: Sealed | None = None
    """Of the `restore` entry; None where another restorer had been quicker."""
    level: str = ""
    pools: int = 0
    holds_live: int = 0
    holds_ended: int = 0
    answers: int = 0
    missing: Missing | None = None
    released: list[str] = field(default_factory=list)
    """Live holds that were given back, because their key had made a later one in a store that did not know it."""
    dropped: list[str] = field(default_factory=list)
    """Batches that only the journal had and that cannot follow the ledger, in words."""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Everything, for `--json` and the log."""
        return {
            "partition": self.partition,
            "restored": self.place is not None,
            "why": str(self.why),
            "after": {"epoch": self.after.epoch, "seq": self.after.seq},
            "epoch": self.place.epoch if self.place else None,
            "seq": self.place.seq if self.place else None,
            "durability": self.level,
            "pools": self.pools,
            "holds_live": self.holds_live,
            "holds_ended": self.holds_ended,
            "answers": self.answers,
            "missing": None if self.missing is None else {**self.missing._asdict(), "entries": self.missing.entries},
            "released": self.released,
            "dropped": self.dropped,
            "seconds": round(self.seconds, 3),
        }


def examine(journal: Journal, ledger: sa.Engine, partition: str) -> Finding:
    """Compare both stores. Raises `StoreUnavailable`, `LedgerUnavailable`.

    The ledger's place is read first: a store that goes on meanwhile can then never seem to be behind.
    """
    cursor, halted = place_of(ledger, partition)
    store = journal.head()
    here = f"the ledger at epoch {cursor.epoch}, seq {cursor.seq}"
    there = "Redis is empty" if store is None else f"Redis stands at epoch {store.epoch}, seq {store.seq}"
    if halted is not None:
        return Finding(Why.HALTED, f"{there}, {here}, whose writer has stopped: {halted}", store, cursor)
    if store is None:
        return Finding(Why.EMPTY, f"{there}, {here}", store, cursor)
    place, expected = (store.epoch, store.seq), (cursor.epoch, cursor.seq)
    if place < expected:
        return Finding(Why.BEHIND, f"{there}, behind {here}: acknowledged entries are missing from it", store, cursor)
    if place == expected and store.chain != cursor.chain:
        return Finding(Why.FORKED, f"{there}, as does {here}, but with another history", store, cursor)
    if place > expected:
        group = next_group(journal, cursor, 1, 0)
        if not group.batches and place_of(ledger, partition)[0] == cursor:
            sentence = f"{there}, and its journal does not continue {here}: {group.conflict or 'it has nothing more'}"
            return Finding(Why.GAP, sentence, store, cursor)
    return Finding(Why.WHOLE, f"{there}, {here}: nothing is missing", store, cursor)


class Restore:
    """One restore of one partition. `write_on`: lets the ledger take in what the journal still has (a turn of a
    write-behind, or a pause where another process has one); called until nothing is left."""

    def __init__(
        self,
        client: "redis.Redis",
        database_url: str,
        options: EngineOptions,
        *,
        level: str,
        write_on: Callable[[], object],
        silence_ms: int = SILENCE_MS,
    ) -> None:
        self._client = client
        self._database_url = database_url
        self._options = options
        self._level = level
        self._ledger = connect_sync(database_url, name="restore")
        self._write_on = write_on
        self._journal = Journal(client, options.partition)
        self._reviver = Reviver(client, options, silence_ms=silence_ms)
        self._silence_ms = silence_ms

    def close(self) -> None:
        self._ledger.dispose()

    def run(self, finding: Finding, *, seen: tuple[int, int] = (0, 0), by_hand: bool = False) -> Restored:
        """Rebuild the partition that was found so. `seen`: the furthest place that anyone is known to have been shown.

        Raises `StoreUnavailable`, `LedgerUnavailable` and `Overtaken` (try again: the partition stays closed), and
        `LedgerConflict` where the ledger itself does not add up."""
        began = time.monotonic()
        done = Restored(self._options.partition, Why.BY_HAND if by_hand else finding.why, finding.cursor)
        done.level = self._level
        closed = self._reviver.close(finding.store.epoch if finding.store else None)
        if closed.closing != Closing.CLOSED:
            _log.info("restore-left-to-another", partition=done.partition, how=str(closed.closing))
            return done
        _log.warning("restore-began", partition=done.partition, why=str(done.why), found=finding.sentence)
        if by_hand:
            self._resume()
        with self._alive():
            self._rebuild(done, closed.was, seen)
        done.seconds = time.monotonic() - began
        report = _log.error if done.missing or done.dropped else _log.warning
        report("restored", **done.as_json())
        return done

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Gives signs of life meanwhile: a question to a large ledger may take longer than the patience of others."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self._silence_ms / 5000):
                try:
                    self._reviver.beat()
                except FlashHoldError:
                    return  # the next step meets the same, and says so

        beating = threading.Thread(target=beat, name="restore-beat")
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()

    def _rebuild(self, done: Restored, was: Place | None, seen: tuple[int, int]) -> None:
        done.after = self._run_dry()
        tail = self._tail(done.after)
        done.missing = _missing(done.after, was, tail, seen)
        done.dropped = [f"epoch {batch.epoch}, seq {batch.first_seq}, {batch.count} entries" for batch in tail]
        with revival_of(
            self._database_url, done.partition, retention_ms=self._options.retention_ms, now_ms=self._now_ms()
        ) as revival:
            if revival.cursor != done.after:
                raise LedgerUnavailable("the ledger has moved while it was to be read; the restore begins anew")
            twice = self._fill(revival, done)
            at_ms = revival.at_ms
        self._reviver.drop([batch.stream_id for batch in tail])
        done.place = self._seal(done, was, at_ms, twice)
        self._written(done.place)
        self._reviver.open()

    def _resume(self) -> None:
        """Whoever restores by hand has looked at what had stopped the ledger's writer."""
        writer = LedgerWriter(self._database_url, self._options.partition, holder="restore")
        try:
            standing = writer.standing()
            if standing is not None and standing.halted is not None:
                writer.resume(standing)
        finally:
            writer.close()

    def _run_dry(self) -> Cursor:
        """Wait until the ledger has all of the journal that it can take; where it stands then."""
        until = time.monotonic() + DRY_PATIENCE_S
        while True:
            cursor = self._ledger_place()
            group = next_group(self._journal, cursor, 1, 0)
            if not group.batches and self._ledger_place() == cursor:
                return cursor
            if time.monotonic() > until:
                raise LedgerUnavailable("the ledger did not take in what the journal has; is a worker running?")
            self._write_on()

    def _tail(self, cursor: Cursor) -> list[Batch]:
        """What the journal has behind the cursor and the ledger cannot take."""
        try:
            return self._journal.read(cursor.stream_id, JOURNAL_LISTED_MAX, 0)
        except (LookupError, ValueError) as error:
            raise LedgerConflict(
                f"the journal has a record that no script wrote; look at it, then delete it: {error!r}"
            ) from error

    def _fill(self, revival: Revival, done: Restored) -> list[RevivedHold]:
        """Returns the live holds that cannot stay, because their key has made a later one."""
        reviver = self._reviver
        reviver.clear()
        pools = revival.pools()
        skus = revival.skus(pools)
        reviver.pools(pools)
        reviver.skus(skus)
        seqs: list[int] = []
        with ThreadPoolExecutor(1, thread_name_prefix="restore") as filling:
            # While the store takes one page in, the next one is read and folded.
            under_way: Future[list[int]] | None = None
            for page in revival.holds():
                if under_way is not None:
                    seqs += under_way.result()
                under_way = filling.submit(self._fill_page, page)
                live = sum(not hold.state for hold in page.holds)
                done.holds_live += live
                done.holds_ended += len(page.holds) - live
                done.answers += len(page.answers)
            if under_way is not None:
                seqs += under_way.result()
        reviver.wakes()
        revival.check(pools)
        twice = revival.holds_at(seqs).holds if seqs else []
        reviver.shares(_without(revival.shares(skus), twice))
        reviver.answers(_counted(revival.answers(), done))
        reviver.queue(revival.queue())
        done.pools = len(pools)
        done.released = [hold_id(done.partition, hold.digest, hold.seq) for hold in twice]
        return twice

    def _fill_page(self, page: HoldsPage) -> list[int]:
        twice = self._reviver.holds(page.holds)
        self._reviver.answers(page.answers)
        self._reviver.queue(page.overdue)
        return twice

    def _seal(self, done: Restored, was: Place | None, at_ms: int, twice: list[RevivedHold]) -> Sealed:
        """Under an epoch that neither the ledger nor the store has seen."""
        cursor = done.after
        epoch = max(cursor.epoch, was.epoch if was else 0, done.missing.epoch if done.missing else 0) + 1
        stream_ms, _ = stream_place(cursor.stream_id)
        details: dict[str, Any] = {"after": {"epoch": cursor.epoch, "seq": cursor.seq}, "durability": done.level}
        if done.missing:
            details["missing"] = done.missing._asdict()
        return self._reviver.seal(
            epoch, cursor.seq, cursor.chain, at_ms=at_ms, pools=done.pools, stream_ms=stream_ms, reason=str(done.why),
            details=details, twice=twice,
        )  # fmt: skip

    def _written(self, place: Sealed) -> None:
        """Wait until the ledger has the `restore` entry."""
        until = time.monotonic() + DRY_PATIENCE_S
        while self._ledger_place().epoch < place.epoch:
            if time.monotonic() > until:
                raise LedgerUnavailable("the ledger did not take in the restore's own entry; is a worker running?")
            self._write_on()

    def _ledger_place(self) -> Cursor:
        return place_of(self._ledger, self._options.partition)[0]

    def _now_ms(self) -> int:
        try:
            seconds, micros = self._client.time()
        except redis.RedisError as error:
            raise StoreUnavailable(f"cannot read the store's clock: {error}") from error
        return int(seconds) * 1000 + int(micros) // 1000


def _counted(answers: Iterable[Any], done: Restored) -> Iterable[Any]:
    for answer in answers:
        done.answers += 1
        yield answer


def _without(shares: Iterable[RevivedShare], given_back: Iterable[RevivedHold]) -> Iterator[RevivedShare]:
    """The buyers' units but for those of these holds."""
    units = Counter[tuple[str, str]]()
    for hold in given_back:
        for sku, _, quantity, *_ in hold.lines:
            units[sku, hold.buyer] += quantity
    for share in shares:
        left = share.units - units[share.sku, share.buyer]
        if left:
            yield share._replace(units=left)


def _missing(after: Cursor, was: Place | None, tail: list[Batch], seen: tuple[int, int]) -> Missing | None:
    places = [seen, *((batch.epoch, batch.first_seq + batch.count - 1) for batch in tail)]
    if was is not None:
        places.append((was.epoch, was.seq))
    epoch, seq = max(places)
    if epoch < after.epoch or seq <= after.seq:
        return None
    return Missing(epoch, after.seq + 1, seq)


__all__ = ["AUTOMATIC", "Finding", "Missing", "Overtaken", "Restore", "Restored", "Why", "examine"]

"""Journal → ledger. One loop of small steps; the process may die between any two of them, and what is in the ledger is
still a gap-free prefix of the journal, each entry once.

It holds by three things. The cursor moves in the same transaction as the rows. The chain of every batch is computed
again before it is written, on from where the ledger stands. The journal is trimmed only behind what is written.
"""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

from flashhold import telemetry
from flashhold.domain.errors import LedgerConflict, LedgerUnavailable, StoreUnavailable
from flashhold.engine.journal import Journal
from flashhold.ledger.rows import Rows
from flashhold.ledger.writer import WRITES, Cursor, Fenced, Lease, LedgerWriter, Transaction
from flashhold.services.collector import rare_collections
from flashhold.services.follow import Group, check_end, cursor_after, is_behind, next_group, stream_place
from flashhold.services.gauges import WorkerGauges

_log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True)
class WriteBehindOptions:
    """How eagerly to write. Times are ms."""

    group_entries: int = 8_192
    """Entries a transaction, about: with half of it balances of 1000 SKUs are touched twice as often, with twice of it
    nothing was faster."""
    batches_max: int = 512
    """Batches a read, at most: small batches carry little, and a group of them should still be bounded."""
    linger_ms: int = 10
    """Rest after a small group: a transaction costs the same for one entry and for a hundred, so let some gather."""
    linger_below: int = 256
    block_ms: int = 500
    """How long a read waits for the first batch; also how soon a stop is noticed."""
    margin_ms: int = 5_000
    """How long a written batch stays in the journal: a Postgres that fails over to a lagging standby gets it again."""
    patience_ms: int = 10_000
    """The longest wait between tries while a store is away."""
    lag_alarm_ms: int = 30_000
    """An older entry than this in the journal is said aloud, long before the journal fills Redis' memory."""


class Drained(NamedTuple):
    """What a drain has written."""

    entries: int
    batches: int
    seconds: float


@dataclass
class Turn:
    """What one turn carries from step to step."""

    open: ExitStack
    block_ms: int
    began: float = field(default_factory=time.monotonic)
    _group: Group | None = None
    _into: Transaction | None = None

    @property
    def group(self) -> Group:
        assert self._group is not None, "`read` comes first"
        return self._group

    @property
    def into(self) -> Transaction:
        assert self._into is not None, "`begin` comes first"
        return self._into


class NothingToDo(Exception):
    """This turn ends here: a stand-by, a halted partition, or an empty journal."""


class WriteBehind:
    """The write-behind of one partition. Blocking; meant for a thread of its own."""

    def __init__(
        self,
        journal: Journal,
        writer: LedgerWriter,
        *,
        options: WriteBehindOptions | None = None,
        gauges: WorkerGauges | None = None,
        steps: "tuple[Step, ...] | None" = None,
    ) -> None:
        self.options = options or WriteBehindOptions()
        self.gauges = gauges or WorkerGauges()
        self._journal = journal
        self._writer = writer
        self._steps = steps or STEPS
        self._stop = threading.Event()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="journal-reader")
        self._ahead: Future[Group] | None = None
        self._lease: Lease | None = None
        self._renew_at = 0.0
        # Until it has seen some, it takes them to be full ones.
        self._batches_max = max(1, min(self.options.batches_max, self.options.group_entries // 256))
        self._one_by_one = False
        self._written_at = time.monotonic()
        self._known: Cursor | None = None
        self._looked_at = 0.0
        self._measured_at = 0.0
        self._trimmed_to = ""

    def run(self) -> None:
        """Write until `stop`. Stores that are away are waited for; a conflict halts the partition, not the loop."""
        failures = 0
        try:
            with rare_collections():
                while not self._stop.is_set():
                    try:
                        group = self.turn()
                        failures = 0
                        if group is not None and len(group.rows.entries) < self.options.linger_below:
                            self._stop.wait(self.options.linger_ms / 1000)
                    except (LedgerUnavailable, StoreUnavailable) as error:
                        failures += 1
                        self._wait_for_store(error, failures)
        finally:
            self.close()

    @property
    def leads(self) -> bool:
        """Does this process write the ledger at present?"""
        return self._lease is not None

    def stop(self) -> None:
        """Let `run` end after its turn; from any thread."""
        self._stop.set()

    def drain(self) -> Drained:
        """Write what the journal holds now, and say how fast. Raises what `turn` raises."""
        began, entries, batches = time.perf_counter(), 0, 0
        with rare_collections():
            while group := self.turn(block=False):
                entries += len(group.rows.entries)
                batches += len(group.batches)
        return Drained(entries, batches, time.perf_counter() - began)

    def close(self) -> None:
        """Hand the lease over and close the ledger's connections; `run` does so by itself."""
        self._reader.shutdown(cancel_futures=True)
        try:
            if self._lease is not None:
                self._writer.hand_over(self._lease)
        except LedgerUnavailable as error:
            _log.warning("lease-not-handed-over", reason=str(error))
        finally:
            self._forget()
            self._writer.close()

    def turn(self, *, block: bool = True) -> Group | None:
        """Go through the steps once; the group written, or None. Raises `LedgerUnavailable`, `StoreUnavailable`; after
        either, and after being overtaken, the next turn first asks the ledger where it is."""
        try:
            with ExitStack() as stack:
                turn = Turn(stack, self.options.block_ms if block else 0)
                for step in self._steps:
                    step.take(self, turn)
                return turn.group
        except NothingToDo:
            return None
        except Fenced:
            _log.warning("overtaken", partition=self._writer.partition, holder=self._writer.holder)
            self._forget()
            return None
        except LedgerConflict as conflict:
            self._refuse(conflict)
            return None
        except LedgerUnavailable:
            # Whether the transaction went through is unknown; the cursor in the database knows.
            self._forget()
            raise

    # The steps, in the order of STEPS.

    def _claim(self, turn: Turn) -> None:
        if self._lease is None:
            self._lease = self._writer.claim()
            self._renewed()
            self.gauges.writing.set(self._lease is not None)
            if self._lease is None:
                if turn.block_ms:
                    self._stop.wait(random.uniform(0.2, 0.4) * self._writer.lease_ms / 1000)
                raise NothingToDo
            self._known = self._lease.cursor
            self.gauges.halted.set(self._lease.halted is not None)
        if self._lease.halted is not None:
            self._lease = None
            if turn.block_ms:
                self._stop.wait(min(2.0, self._writer.lease_ms / 3000))
            raise NothingToDo

    def _read(self, turn: Turn) -> None:
        cursor, ahead = self._held.cursor, self._ahead
        self._ahead = None
        group = ahead.result() if ahead is not None else None
        if group is None or group.after != cursor or not (group.batches or group.conflict):
            batches_max = 1 if self._one_by_one else self._batches_max
            group = next_group(self._journal, cursor, batches_max, turn.block_ms)
        if not group.batches:
            if group.conflict:
                raise group.conflict
            self._look_around(cursor)
            raise NothingToDo
        turn._group = group

    def _begin(self, turn: Turn) -> None:
        turn._into = turn.open.enter_context(self._writer.transaction())

    def _advance(self, turn: Turn) -> None:
        last = turn.group.batches[-1]
        turn.into.advance(self._held, last, self._writer.lease_ms)
        if turn.group.more and not self._one_by_one:
            # While Postgres takes this group in, the next one is read and decoded.
            self._ahead = self._reader.submit(next_group, self._journal, cursor_after(last), self._batches_max, 0)

    def _seal(self, turn: Turn) -> None:
        turn.open.close()
        entries = len(turn.group.rows.entries)
        self._known = cursor_after(turn.group.batches[-1])
        self._lease = self._held._replace(cursor=self._known)
        self._renewed()
        self._one_by_one = False
        self._written_at = time.monotonic()
        self._batches_max = max(
            1, min(self.options.batches_max, self.options.group_entries * len(turn.group.batches) // entries)
        )
        self.gauges.entries.inc(entries)
        self.gauges.group_seconds.observe(self._written_at - turn.began)

    def _trim(self, turn: Turn) -> None:
        written_ms, _ = stream_place(turn.group.batches[-1].stream_id)
        self._trim_before(f"{max(0, written_ms - self.options.margin_ms)}-0")
        if time.monotonic() - self._measured_at > 0.5:
            self._measure()

    @property
    def _held(self) -> Lease:
        assert self._lease is not None, "`claim` comes first"
        return self._lease

    def _look_around(self, cursor: Cursor) -> None:
        """Nothing to write: because all is written? Keeps the lease, trims what has outlived its margin."""
        now = time.monotonic()
        if now >= self._renew_at:
            self._writer.renew(self._held)
            self._renewed()
        if now - self._looked_at < min(1.0, self.options.margin_ms / 1000):
            return
        self._looked_at = now
        check_end(self._journal, cursor)
        if now - self._written_at > self.options.margin_ms / 1000:
            self._trim_before(cursor.stream_id)
        self._measure()

    def _trim_before(self, stream_id: str) -> None:
        """Never beyond the cursor, whatever the store's clock has made of the stream's ids."""
        edge = min(stream_id, self._held.cursor.stream_id, key=stream_place)
        if edge != self._trimmed_to:
            self._journal.trim(edge)
            self._trimmed_to = edge

    def _measure(self) -> None:
        """How far the ledger is behind, also while Postgres is away: from what was last known of it."""
        self._measured_at = time.monotonic()
        self.gauges.journal_batches.set(self._journal.length())
        head = self._journal.head()
        if head is None or self._known is None:
            return
        oldest = self._journal.read(self._known.stream_id, 1, 0)
        lag_ms = max(0, int(time.time() * 1000) - oldest[0].at_ms) if oldest else 0
        behind = max(0, head.seq - self._known.seq)
        self.gauges.lag_entries.set(behind)
        self.gauges.lag_seconds.set(lag_ms / 1000)
        if lag_ms > self.options.lag_alarm_ms:
            _log.error("ledger-behind", partition=head.partition, entries=behind, seconds=lag_ms // 1000)

    def _refuse(self, conflict: LedgerConflict) -> None:
        """Try again batch by batch, so that all before the bad one are kept; then halt, and never skip."""
        self._ahead = None
        if not self._one_by_one:
            self._one_by_one = True
            return
        self._one_by_one = False
        if is_behind(self._journal.head(), self._held.cursor):
            # The store has lost its place, so what its journal lists is of no history that counts. That is not for
            # someone to look at: a restore closes the store, lists what does not follow, and goes on.
            _log.warning("journal-left-to-restore", partition=self._writer.partition, reason=str(conflict))
            self._stop.wait(0.2)
            return
        _log.error("partition-halted", partition=self._writer.partition, reason=str(conflict))
        self.gauges.halted.set(1)
        self._writer.halt(self._held, str(conflict))
        self._forget()

    def _wait_for_store(self, error: LedgerUnavailable | StoreUnavailable, failures: int) -> None:
        store = "postgres" if isinstance(error, LedgerUnavailable) else "redis"
        self.gauges.failures.labels(store).inc()
        # Full jitter: workers that lost the same store do not come back all at once.
        wait_s = random.uniform(0, min(self.options.patience_ms, 100 * 2 ** min(failures, 10))) / 1000
        _log.warning("store-away", store=store, reason=str(error), tries=failures, wait_s=round(wait_s, 2))
        self._stop.wait(wait_s)
        if isinstance(error, LedgerUnavailable):
            try:
                self._measure()
            except StoreUnavailable as other:
                _log.warning("store-away", store="redis", reason=str(other))

    def _renewed(self) -> None:
        # Oftener than the lease needs: each renewal also says that the ledger is complete until now.
        self._renew_at = time.monotonic() + min(1000, self._writer.lease_ms / 3) / 1000

    def _forget(self) -> None:
        self._lease = None
        self._ahead = None
        self.gauges.writing.set(0)


class Step(NamedTuple):
    """One step of a turn. The process may die before or after any of them."""

    name: str
    take: Callable[[WriteBehind, Turn], None]


def _writing(name: str, write: Callable[[Transaction, Rows], None]) -> Step:
    return Step(name, lambda _, turn: write(turn.into, turn.group.rows))


STEPS = (
    Step("claim", WriteBehind._claim),
    Step("read", WriteBehind._read),
    Step("begin", WriteBehind._begin),
    Step("advance", WriteBehind._advance),
    *(_writing(name, write) for name, write in WRITES),
    Step("seal", WriteBehind._seal),
    Step("trim", WriteBehind._trim),
)
